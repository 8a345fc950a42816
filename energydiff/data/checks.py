"""Every image file is decoded once before it is trained on, and the outcome is remembered.

Good files are remembered by path, size and modification time in a JSON file per root folder.
Broken files are not, so that one repaired, or one that a disk failed to deliver, is tried again.

Values of 10 bits in files of 16, masks of 0 and 1, and white drawings on a transparent ground over
white decode without a fault and come out blank. In one file that cannot be told from a dark
photograph, over all of them it can: see ``_judge_levels``.
"""

import os
import stat
import warnings
from collections.abc import Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

import PIL

from energydiff.data.decode import WHITE, Colour, decode_image
from energydiff.data.remembered import Remembered
from energydiff.data.values import UnreadableImage
from energydiff.errors import UserError
from energydiff.progress import with_progress

# What the remembered outcomes depend on besides the files.
READER = f"2, Pillow {PIL.__version__}"

# From the lowest to the highest level of 0..255: 14 bits in a file of 16 reach a quarter of white,
# 12 bits a sixteenth. Whole folders of photographs reach white; single ones may be dark.
FAINT_FOLDER = 64
FAINT_IMAGE = 16


class Checked(NamedTuple):
    """The outcome for all files: sizes (height, width) by name, reasons by name, and the lowest and
    highest level of all."""

    good: dict[str, tuple[int, int]]
    broken: dict[str, str]
    levels: tuple[int, int]


class _Entry(NamedTuple):
    bytes: int
    mtime_ns: int
    height: int
    width: int
    lowest: int
    highest: int


def check_images(
    root: Path,
    names: Sequence[str],
    workers: int | None,
    cache_dir: Path | None,
    background: Colour = WHITE,
    refuse_faint: bool = True,
) -> Checked:
    """Decodes every file that is new or changed since the last check of this root.

    names: paths relative to ``root``. workers: threads, one per processor by default. background:
    as in ``decode_image``. Never raises for a broken file; an unwritable cache is a warning, and
    so are faint images among others. Raises UserError where all images together are faint, or
    warns of that too without ``refuse_faint``.
    """
    # The levels depend on the background.
    remembered_in = Remembered.of("images", root, READER, cache_dir, bytes(background))
    remembered = remembered_in.recall(_Entry)
    good: dict[str, _Entry] = {}
    broken: dict[str, str] = {}

    def check(name: str) -> tuple[str, _Entry | str]:
        try:
            return name, _check(root / name, remembered.get(name), background)
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
            remembered_in.remember(known)
    levels = _judge_levels(root, good, refuse_faint)
    return Checked(
        {name: (good[name].height, good[name].width) for name in names if name in good},
        {name: broken[name] for name in names if name in broken},
        levels,
    )


def _check(path: Path, remembered: _Entry | None, background: Colour) -> _Entry:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableImage("not a regular file")
    if remembered and remembered[:2] == (status.st_size, status.st_mtime_ns):
        return remembered
    pixels = decode_image(path, channels=3, image_size=None, background=background)
    _, height, width = pixels.shape
    levels = int(pixels.min()), int(pixels.max())
    return _Entry(status.st_size, status.st_mtime_ns, height, width, *levels)


def _judge_levels(root: Path, good: dict[str, _Entry], refuse: bool) -> tuple[int, int]:
    """Refuses a folder whose images are faint all together; warns of a faint one among others.

    Returns the lowest and the highest level.
    """
    lowest = min((entry.lowest for entry in good.values()), default=0)
    highest = max((entry.highest for entry in good.values()), default=255)
    cause = (
        "values of fewer bits than their files have room for, masks of 0 and 1, and drawings in "
        "the colour of the background look like this"
    )
    if highest - lowest <= FAINT_FOLDER:
        message = (
            f"The images in {root} use only the levels {lowest} to {highest} of 0 to 255, all "
            f"{len(good)} together: {cause}; save them scaled to the whole range of their type, or "
            "choose another background if they are transparent."
        )
        if refuse:
            raise UserError(message)
        warnings.warn(message, stacklevel=5)
        return lowest, highest
    faint = [name for name, e in good.items() if e.highest - e.lowest <= FAINT_IMAGE]
    if faint:
        warnings.warn(
            f"{len(faint)} of the {len(good)} images in {root} are blank or nearly, all within "
            f"{FAINT_IMAGE} of 255 levels; the first is {min(faint)}: {cause}.",
            stacklevel=5,
        )
    return lowest, highest
