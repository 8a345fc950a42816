"""Files that later runs rely on: written whole or not at all, and known by their SHA-256."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any
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
