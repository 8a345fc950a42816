"""Every image file is decoded once before it is trained on, and the outcome is remembered.

Good files are remembered by path, size and modification time in a JSON file per root folder.
Broken files are not, so that one repaired, or one that a disk failed to deliver, is tried again.
"""

import json
import os
import stat
import warnings
from collections.abc import Sequence
from hashlib import blake2b
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

import PIL

from energydiff.data.decode import UnreadableImage, decode_image
from energydiff.files import write_whole
from energydiff.progress import with_progress

# What the remembered outcomes depend on besides the files.
READER = f"1, Pillow {PIL.__version__}"


class Checked(NamedTuple):
    """The outcome for all files: sizes (height, width) by name, and reasons by name."""

    good: dict[str, tuple[int, int]]
    broken: dict[str, str]


class _Entry(NamedTuple):
    bytes: int
    mtime_ns: int
    height: int
    width: int


def default_cache_dir() -> Path:
    """$ENERGYDIFF_CACHE, or energydiff in $XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("ENERGYDIFF_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "energydiff"


def check_images(
    root: Path, names: Sequence[str], workers: int | None, cache_dir: Path | None
) -> Checked:
    """Decodes every file that is new or changed since the last check of this root.

    names: paths relative to ``root``. workers: threads, one per processor by default.
    Never raises for a broken file; an unwritable cache is a warning.
    """
    root_hash = blake2b(os.fsencode(root.resolve()), digest_size=16).hexdigest()
    cache = (cache_dir or default_cache_dir()) / f"images-{root_hash}.json"
    remembered = _recall(cache)
    good: dict[str, _Entry] = {}
    broken: dict[str, str] = {}

    def check(name: str) -> tuple[str, _Entry | str]:
        try:
            return name, _check(root / name, remembered.get(name))
        except (UnreadableImage, OSError) as error:
            return name, str(error)

    try:
        # Threads suffice: Pillow lets go of the interpreter lock while it decodes.
        with ThreadPool(workers or os.cpu_count()) as pool:
            outcomes = pool.imap_unordered(check, names, chunksize=8)
            for name, outcome in with_progress(outcomes, len(names), "Checking images"):
                if isinstance(outcome, str):
                    broken[name] = outcome
                else:
                    good[name] = outcome
    finally:  # an interrupted check goes on where it stopped
        known = {**remembered, **good}
        known = {name: known[name] for name in names if name in known}
        if known != remembered:
            _remember(cache, known)
    return Checked(
        {name: (good[name].height, good[name].width) for name in names if name in good},
        {name: broken[name] for name in names if name in broken},
    )


def _check(path: Path, remembered: _Entry | None) -> _Entry:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableImage("not a regular file")
    if remembered and remembered[:2] == (status.st_size, status.st_mtime_ns):
        return remembered
    _, height, width = decode_image(path, channels=3, image_size=None).shape
    return _Entry(status.st_size, status.st_mtime_ns, height, width)


def _recall(cache: Path) -> dict[str, _Entry]:
    """What the cache file holds; nothing if it is absent, damaged or of another reader."""
    try:
        content = json.loads(cache.read_bytes())
        if content["reader"] != READER:
            return {}
        return {name: _Entry(*entry) for name, entry in content["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _remember(cache: Path, entries: dict[str, _Entry]) -> None:
    """Writes the cache file whole or not at all."""
    try:
        write_whole(cache, json.dumps({"reader": READER, "files": entries}).encode())
    except OSError as error:
        warnings.warn(
            f"The image check is not remembered, and will be repeated: {error}. "
            "Set ENERGYDIFF_CACHE to a folder that can be written.",
            stacklevel=2,
        )
