"""Files that later runs rely on: written whole or not at all, and known by their SHA-256."""

import hashlib
import tempfile
from pathlib import Path


def write_whole(file: Path, content: bytes) -> None:
    """Writes the file in one step, so that several ranks may do so at once; makes its folder.

    Where that fails, what was there before stays and nothing else is left behind.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".partial", delete=False) as partial:
        try:
            partial.write(content)
            partial.close()
            Path(partial.name).replace(file)
        except BaseException:
            Path(partial.name).unlink(missing_ok=True)
            raise


def digest_file(file: Path) -> str:
    """SHA-256 of the file, hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
