"""The one door to data."""

from pathlib import Path
from typing import Literal, get_args

from energydiff.data.arrays import open_arrays
from energydiff.data.cifar10 import open_cifar10
from energydiff.data.digits import open_digits
from energydiff.data.folder import open_folder
from energydiff.data.idx import open_idx
from energydiff.data.source import Splits
from energydiff.errors import UserError

SourceName = Literal["digits", "folder", "arrays", "idx", "cifar10"]
HELD_OUT = 1 / 6


def open_data(
    source: SourceName = "digits",
    *,
    root: str | Path | None = None,
    image_size: int | None = None,
    channels: Literal[1, 3] | None = None,
    labels: bool = False,
    held_out: float = HELD_OUT,
    value_range: tuple[float, float] | None = None,
    on_error: Literal["fail", "skip"] = "fail",
    max_skipped: float = 0.001,
    workers: int | None = None,
    cache_dir: Path | None = None,
) -> Splits:
    """The training and the held-out part of a source; see docs/data.md.

    Args:
        source: digits (embedded), folder (of images), arrays (.npy, .npz), idx (MNIST,
            Fashion-MNIST) or cifar10.
        root: the folder or file to read; digits has none.
        image_size: folder: pixels to a side; None keeps images that are all of one size.
        channels: folder: 1 (grey) or 3 (RGB, the default).
        labels: whether samples come with their class; without, every label is -1.
        held_out: share of samples held out by name; idx and cifar10 have a published test set.
        value_range: arrays: the raw values that become -1 and 1; measured by default.
        on_error: folder: what a broken image does to the run.
        max_skipped: folder: the largest share of images that may be skipped.
        workers: folder: threads of the check; one per processor by default.
        cache_dir: folder: where the check is remembered; see ``checks.default_cache_dir``.

    Raises:
        UserError: for an option that the source does not have, and whatever is wrong with the data.
    """
    if source not in get_args(SourceName):
        raise UserError(f"data.source is {source!r}: choose {', '.join(get_args(SourceName))}.")
    foreign = {
        "root": root is not None and source == "digits",
        "image_size": image_size is not None and source != "folder",
        "channels": channels is not None and source != "folder",
        "value_range": value_range is not None and source != "arrays",
        "held_out": held_out != HELD_OUT and source in ("idx", "cifar10"),
    }
    for option, given in foreign.items():
        if given:
            raise UserError(f"data.{option} has no meaning for data.source {source}: leave it out.")
    if source == "digits":
        return open_digits(labels=labels, held_out=held_out)
    if root is None:
        raise UserError(f"data.source {source} needs data.root: the path of the data.")
    path = Path(root).expanduser()
    if source == "arrays":
        return open_arrays(path, labels=labels, held_out=held_out, value_range=value_range)
    if source == "idx":
        return open_idx(path, labels=labels)
    if source == "cifar10":
        return open_cifar10(path, labels=labels)
    return open_folder(
        path,
        image_size=image_size,
        channels=channels or 3,
        labels=labels,
        held_out=held_out,
        on_error=on_error,
        max_skipped=max_skipped,
        workers=workers,
        cache_dir=cache_dir,
    )
