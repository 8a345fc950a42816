"""What was found of files, remembered by their size and time, so that it is found only once.

One JSON file per root folder, and a convenience: absent, damaged or of another reader, it is as if
nothing had been found yet.
"""

import json
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from energydiff.errors import UserError
from energydiff.files import write_whole

Entry = TypeVar("Entry", bound=NamedTuple)


def default_cache_dir() -> Path:
    """$ENERGYDIFF_CACHE, or energydiff in $XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("ENERGYDIFF_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "energydiff"


@dataclass(frozen=True)
class Remembered:
    """Records by the names of files.

    file: where they are kept. reader: what they depend on besides the files.
    """

    file: Path
    reader: str

    @classmethod
    def of(
        cls, kind: str, root: Path, reader: str, cache_dir: Path | None, options: bytes = b""
    ) -> Self:
        """That of one kind of record for a root folder, and for the options they depend on."""
        key = blake2b(os.fsencode(root.resolve()) + options, digest_size=16).hexdigest()
        return cls((cache_dir or default_cache_dir()) / f"{kind}-{key}.json", reader)

    def recall(self, entry: Callable[..., Entry]) -> dict[str, Entry]:
        """What is remembered, each record made by ``entry`` of its fields."""
        try:
            content = json.loads(self.file.read_bytes())
            if content["reader"] != self.reader:
                return {}
            return {name: entry(*fields) for name, fields in content["files"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def remember(self, entries: Mapping[str, Any]) -> None:
        """Writes the file whole or not at all; a warning where it cannot be written."""
        try:
            content = {"reader": self.reader, "files": entries}
            write_whole(self.file, json.dumps(content).encode())
        except (OSError, UserError) as error:
            warnings.warn(
                f"The check of the data is not remembered, and will be repeated: {error}. "
                "Set ENERGYDIFF_CACHE to a folder that can be written.",
                stacklevel=2,
            )
