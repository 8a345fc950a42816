"""Figures and page of a study of memorising."""

from pathlib import Path
from typing import Any


def write_study(record: dict[str, Any], folder: Path) -> list[str]:
    """Stand-in."""
    return [f"Written to {folder / 'study.json'}."]
