"""Files that are there whole or not at all."""

from pathlib import Path


def write_whole(file: Path, content: bytes) -> None:
    """Write a file that replaces its predecessor in one step; its folder is made if need be."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(file.name + ".partial")
    partial.write_bytes(content)
    partial.replace(file)
