"""Files that later runs rely on: written whole or not at all, and known by their SHA-256."""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from energydiff.errors import UserError

PARTIAL = ".partial"


@contextmanager
def whole(file: Path, sync: bool = True) -> Iterator[Path]:
    """Yields where to write what is to become the file, in one step; makes its folder.

    It lies beside the file, so that the step is one of a single file system, and several ranks may
    write at once. Where writing fails, what was there before stays and nothing else is left behind.

    Args:
        sync: wait until it is on the disk, or a crash of the machine could keep the new name and
            lose the bytes.

    Raises:
        UserError: there is no room for the file, or it may not be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{uuid4().hex}{PARTIAL}")
    try:
        yield partial
        if sync:
            with partial.open("rb+") as written:
                os.fsync(written.fileno())
        partial.replace(file)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise UserError(
                f"{file} cannot be written ({error.strerror or error}), and is as it was before:"
                " make room, or choose another place."
            ) from error
        raise


def sweep(folder: Path) -> None:
    """Removes what :func:`whole` left half written in a folder where it was killed."""
    for partial in folder.glob(f"*{PARTIAL}"):
        partial.unlink(missing_ok=True)


def write_whole(file: Path, content: bytes) -> None:
    """Writes the file as :func:`whole` does."""
    with whole(file) as partial:
        partial.write_bytes(content)


def write_arrays(file: Path, arrays: Mapping[str, Any]) -> None:
    """Compressed, as ``numpy.savez_compressed`` does, whole or not at all."""
    with whole(file) as partial, partial.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def write_json(file: Path, content: Any) -> None:
    """Plain data as JSON that every reader takes, whole or not at all; makes the folder.

    What is not finite, which JSON does not know, becomes null at any depth.
    """
    text = json.dumps(_finite(content), indent=1, allow_nan=False)
    write_whole(file, f"{text}\n".encode())


def _finite(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {name: _finite(item) for name, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
    return value


def digest_file(file: Path) -> str:
    """SHA-256 of the file, hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
