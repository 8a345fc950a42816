"""A tree of image files, decoded when a sample is asked for."""

import warnings
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from energydiff.data.checks import check_images
from energydiff.data.decode import SUFFIXES, Colour, decode_image, parse_colour
from energydiff.data.normalization import Normalization
from energydiff.data.source import Rows, Source, Splits, index_classes
from energydiff.data.spec import DataSpec
from energydiff.data.split import HELD_OUT, is_held_out, pictures, split_rows
from energydiff.data.tree import is_image, list_files, remarks_on
from energydiff.data.values import UnreadableImage
from energydiff.errors import UserError

SHOWN_BROKEN = 10
ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"})


class BrokenImage(UserError):
    """A file could be decoded when it was checked, and cannot any more."""


class FolderSource(Source):
    """Image files under ``root``; names are their paths relative to it, with slashes.

    Args:
        spare: how many may still break: in the place of one that does comes the next that can be
            read, with a warning.
    """

    decoded = True

    def __init__(
        self,
        root: Path,
        image_size: int | None,
        background: Colour,
        draft: bool,
        spare: int,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._root = root
        self._image_size = image_size
        self._background, self._draft = background, draft
        self.spare = spare
        self._broken: set[str] = set()

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        for after in range(len(self)):
            row = (i + after) % len(self) if after else i
            try:
                return super().__getitem__(row)
            except BrokenImage as error:
                self._give_up(self.names[row], error)
        return super().__getitem__(i)  # none can be read: say so of the one that was asked for

    def _give_up(self, name: str, error: BrokenImage) -> None:
        """Raises the error unless so many may break; each file is told of once."""
        if name in self._broken:
            return
        if len(self._broken) == self.spare:
            raise error
        self._broken.add(name)
        warnings.warn(f"{error} The next image takes its place.", stacklevel=3)

    def _read(self, i: int) -> Tensor:
        path = self._root / self.names[i]
        try:
            how = self.shape[0], self._image_size, self._background, self._draft
            return torch.from_numpy(decode_image(path, *how))
        except UnreadableImage as error:
            raise BrokenImage(
                f"{path} could be read before but not now ({error}): restore it."
            ) from error


@dataclass(frozen=True)
class Folder(DataSpec):
    """A tree of image files: uint8 samples (channels, H, W) of 0..255, decoded when asked for.

    With labels, the class of an image is its first-level folder.

    Args:
        root: the folder.
        image_size: pixels to a side; by default that of the images, which must then be one.
        channels: 1 for grey, 3 for RGB.
        held_out: share of images kept out of training, chosen by a hash of their names.
        on_error: what a broken image does: end the run, or be left out with a warning.
        max_skipped: the largest share of images that may be left out.
        workers: threads of the check; one per processor by default.
        cache_dir: where the check is remembered; energydiff's cache folder by default.
        background: what is seen through transparent pixels: a colour name or '#rrggbb'.
        variants: a regular expression for what tells variants of one picture apart: files whose
            paths are the same without it, and without their suffix, share a side of the split.
        draft: decode large JPEGs at a lower resolution that is still twice ``image_size``: faster,
            and pixels differ by a level to three of 255 on average.
    """

    root: Path | str
    image_size: int | None = None
    channels: Literal[1, 3] = 3
    held_out: float = HELD_OUT
    on_error: Literal["fail", "skip"] = "fail"
    max_skipped: float = 0.001
    workers: int | None = None
    cache_dir: Path | None = None
    background: str = "white"
    variants: str | None = None
    draft: bool = False

    def open(self) -> Splits:
        """Refuses what :meth:`whole` refuses."""
        source, left_out = self._open_all(measured=False)
        rows = split_rows(pictures(source.names, self.variants), self.held_out, str(self.root))
        train, held_out = (source.select(part) for part in rows)
        those = zip(left_out, pictures(left_out, self.variants), strict=True)
        missed = [name for name, picture in those if not is_held_out(picture, self.held_out)]
        train.places = _places(train.names, missed)
        return Splits(train, held_out)

    def whole(self, measured: bool = False) -> FolderSource:
        """All samples, by name.

        Args:
            measured: samples to be measured, whose folder is named and has no options to set: if
                their values nowhere fill their range, a warning tells of it instead.

        Raises:
            UserError: a root without images, a broken image unless it may be skipped, images whose
                values nowhere fill their range, images of different sizes without an image_size,
                and a background that is no colour.
        """
        return self._open_all(measured)[0]

    def _open_all(self, measured: bool) -> tuple[FolderSource, list[str]]:
        """All samples, and the names of the images that were left out."""
        root = Path(self.root).expanduser()
        if not root.is_dir():
            raise UserError(
                f"{root} {'is a file' if root.exists() else 'does not exist'}:"
                f" {'give' if measured else 'set data.source.root to'} a folder of images"
                f"{', unpacked' if root.suffix.lower() in ARCHIVES else ''}."
            )
        size = self.image_size
        if size is not None and size < 1:
            raise UserError(f"data.source.image_size must be at least 1, got {size}.")
        colour = parse_colour(self.background)
        files = list_files(root)
        found = [name for name in files if is_image(name)]
        if not found:
            raise UserError(
                f"{root} holds no images: the suffixes read are {', '.join(sorted(SUFFIXES))}."
            )
        sizes, broken, levels = check_images(
            root, found, self.workers, self.cache_dir, colour, not measured
        )
        if broken:
            skip = "" if measured else ", or set data.source.on_error to skip"
            _handle_broken(root, broken, len(found), self.on_error, self.max_skipped, skip)
        resize = "measure images of one size" if measured else "set data.source.image_size"
        height, width = (size, size) if size else _common_size(root, sizes, resize)
        names = list(sizes)
        classes, indices = _folder_classes(root, names) if self.labels else ((), None)
        may_break = int(self.max_skipped * len(found)) if self.on_error == "skip" else 0
        source = FolderSource(
            root.absolute(),
            size,
            colour,
            self.draft,
            max(0, may_break - len(broken)),
            (self.channels, height, width),
            Normalization(0, 255),
            names,
            classes,
            indices,
        )
        source.remarks = (
            f"levels {levels[0]} to {levels[1]} in use",
            *([f"left out as broken: {len(broken):,}"] if broken else []),
            *remarks_on(files, self.labels),
        )
        return source, list(broken)


def _places(names: Sequence[str], left_out: Sequence[str]) -> Rows:
    """See ``Source.places``: of the sorted names and those that were left out among them."""
    sought = sorted([*names, *left_out])
    return np.array([bisect_left(names, name) % len(names) for name in sought], np.int64)


def _handle_broken(
    root: Path,
    broken: dict[str, str],
    count: int,
    on_error: str,
    max_skipped: float,
    else_skip: str,
) -> None:
    share = len(broken) / count
    told = [f"{root / name} cannot be read ({reason})" for name, reason in broken.items()]
    if len(told) > SHOWN_BROKEN:
        told[SHOWN_BROKEN:] = [f"and {len(told) - SHOWN_BROKEN:,} more"]
    listed = ", ".join(told)
    if on_error == "fail":
        raise UserError(
            f"{listed}: repair or remove {'it' if not told[1:] else 'them'}{else_skip}."
        )
    if share > max_skipped:
        raise UserError(
            f"of the {count:,} images in {root}, {len(broken):,} ({share:.2%}) cannot be read, more"
            f" than data.source.max_skipped = {max_skipped:.2%}: repair or remove what is damaged,"
            f" or raise it; {listed}."
        )
    lines = "".join(f"\n  {line}" for line in told)
    warnings.warn(
        f"Left out {len(broken):,} of {count:,} images ({share:.2%}):{lines}", stacklevel=4
    )


def _common_size(root: Path, sizes: dict[str, tuple[int, int]], advice: str) -> tuple[int, int]:
    """The height and width that all images have; ``advice`` is what to do if they have not."""
    first, size = next(iter(sizes.items()))
    for name, other in sizes.items():
        if other != size:
            raise UserError(
                f"{root} holds images of different sizes ({first} is {size[1]}x{size[0]}, {name} "
                f"is {other[1]}x{other[0]}): {advice}."
            )
    return size


def _folder_classes(root: Path, names: Sequence[str]) -> tuple[tuple[str, ...], Rows]:
    for name in names:
        if "/" not in name:
            raise UserError(
                f"{root / name} lies in no class folder: move it into one or leave"
                " data.source.labels off."
            )
    return index_classes(np.array([name.split("/", 1)[0] for name in names]))
