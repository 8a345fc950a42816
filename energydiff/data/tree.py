"""Which files of a folder are images, and what to tell of the others."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from energydiff.data.decode import SUFFIXES
from energydiff.errors import UserError

# What folders are called that hold parts of a data set, and no class of it.
PARTS = {"train", "training", "val", "valid", "validation", "test", "testing", "dev", "eval"}
SHOWN_SUFFIXES = 5


def list_files(root: Path) -> list[str]:
    """Sorted paths, relative to ``root``, of all files below it.

    Hidden files and folders are left out. Links to folders are followed, but no folder is entered
    twice: a loop ends, and no image is at once in the training and the held-out part.
    """
    found: list[str] = []
    entered: set[tuple[int, int]] = set()
    for folder, subfolders, files in os.walk(root, onerror=_refuse, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in entered:
            subfolders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        relative = Path(folder).relative_to(root)
        found += ((relative / name).as_posix() for name in files if not name.startswith("."))
    return sorted(found)


def is_image(name: str) -> bool:
    """Whether a file has a suffix of an image that is read."""
    return Path(name).suffix.lower() in SUFFIXES


def remarks_on(files: Sequence[str], labels: bool) -> list[str]:
    """What to know of the files of a folder: those not read, and parts taken for classes."""
    found = []
    others = Counter(Path(name).suffix.lower() for name in files if not is_image(name))
    if others:
        told = [f"{n:,} {suffix or 'without a suffix'}" for suffix, n in others.most_common()]
        more = ", …" if len(told) > SHOWN_SUFFIXES else ""
        found.append(f"files not read: {', '.join(told[:SHOWN_SUFFIXES])}{more}")
    folders = {name.split("/", 1)[0] for name in files if is_image(name) and "/" in name}
    parts = sorted(name for name in folders if name.lower() in PARTS)
    if len(parts) > 1:
        what = "classes, not as parts" if labels else "one set, and split anew"
        found.append(
            f"the folders {' and '.join(parts)} are read as {what} (data.source.root may name one"
            " of them)"
        )
    return found


def _refuse(error: OSError) -> None:
    raise UserError(f"{error.filename} cannot be listed ({error.strerror}).") from error
