"""Files that later runs rely on: written whole or not at all, and known by their SHA-256."""

import hashlib
from pathlib import Path
from uuid import uuid4


def write_whole(file: Path, content: bytes) -> None:
    """Writes the file in one step, so that several ranks may do so at once; makes its folder.

    Where that fails, what was there before stays and nothing else is left behind.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{uuid4().hex}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def digest_file(file: Path) -> str:
    """SHA-256 of the file, hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
