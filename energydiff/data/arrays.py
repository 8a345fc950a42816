"""Samples from one ``.npy`` or ``.npz`` file.

The axes are read as

    (N, d)          vectors
    (N, H, W)       grey images
    (N, H, W, C)    when the last axis is 1 or 3 and the second is not
    (N, C, H, W)    when the second axis is 1 or 3 and the last is not

and four axes of other lengths by the option ``layout``: nothing tells H channels from four.

uint8 is taken as 0..255. Other numbers become float32, and their range is the smallest to the
largest value of the training part unless one is given. Instead of the range, each channel may be
given mean 0 and standard deviation 1. An ``.npy`` file is mapped, not loaded.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from torch import nn

from energydiff.data.decoder import Decoder
from energydiff.data.normalization import Moments, Normalization, as_moments
from energydiff.data.scan import channel_moments, extremes
from energydiff.data.source import ArraySource, Rows, Splits, index_classes, index_names
from energydiff.data.spec import DataSpec
from energydiff.data.split import HELD_OUT, split_rows
from energydiff.errors import UserError

Array = NDArray[Any]
Layout = Literal["CHW", "HWC"]
SAMPLE_KEYS = ("x", "images", "data")
LABEL_KEYS = ("y", "labels")


class MappedSource(ArraySource):
    """Rows of a mapped ``.npy`` file; a pickled copy maps the file again instead of holding it."""

    def __init__(
        self, path: Path, layout: Layout | None, values: Array, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(values, *args, **kwargs)
        self._path, self._layout = path, layout

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_values": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._values = _channels_first(_load(self._path)[0], self._layout, self._path)


@dataclass(frozen=True)
class Arrays(DataSpec):
    """Samples of one ``.npy`` or ``.npz`` file; class labels are the array y or labels of an
    ``.npz``, and of latents.npy the array latents.labels.npy beside it.

    Args:
        root: the file.
        held_out: share of samples kept out of training, chosen by a hash of their numbers.
        value_range: raw values that become -1 and 1; by default 0 and 255 of uint8, and of other
            numbers the smallest and the largest of the training part.
        layout: the axes of a sample of three: channels first or last; needed unless one of these
            two axes is 1 or 3 long and the other is not.
        key: the array of samples in an ``.npz``; by default x, images or data.
        standardize: give each channel mean 0 and standard deviation 1, those of the training part
            or of two lists, the means and the deviations.
        decoder: a module that makes images (B, 1 or 3, H, W) of -1..1 of samples that are none, as
            latents, wherever images are shown or measured.
    """

    root: Path | str
    held_out: float = HELD_OUT
    value_range: tuple[float, float] | None = None
    layout: Layout | None = None
    key: str | None = None
    standardize: bool | Moments = False
    decoder: nn.Module | None = None

    def open(self) -> Splits:
        """Refuses a file that is not an array of finite real numbers with the axes above, axes that
        can be read in two ways, an ``.npz`` that does not say which array to take, labels that are
        missing or are not one integer or name per sample, channels that cannot be standardised, and
        a decoder that makes no images of the samples."""
        path = Path(self.root).expanduser()
        loaded, loaded_labels = _load(path, self.key)
        values = _channels_first(loaded, self.layout, path)
        classes, indices = _classes(loaded_labels, len(values), path) if self.labels else ((), None)
        names = index_names(len(values))
        train, held = split_rows(names, self.held_out, str(path))
        normalization = self._normalization(values, train, path)
        normalization.picture_shape(values.shape[1:])
        source = (
            MappedSource(path, self.layout, values, normalization, names, classes, indices)
            if path.suffix == ".npy"
            else ArraySource(values, normalization, names, classes, indices)
        )
        return Splits(source.select(train), source.select(held))

    def _normalization(self, values: Array, train: Rows, path: Path) -> Normalization:
        """Range and moments: given, those of uint8, or measured on the training part."""
        if values.dtype == np.uint8:
            low, high = self.value_range or (0, 255)
        else:
            lowest, highest = extremes(values)
            finite = np.isfinite(lowest) & np.isfinite(highest)
            if not finite.all():
                raise UserError(
                    f"{path}: sample {np.argmin(finite)} holds a value that is not finite in"
                    " float32; repair or remove it."
                )
            low, high = self.value_range or (
                float(lowest[train].min()),
                float(highest[train].max()),
            )
        if low == high and self.value_range is None:
            raise UserError(
                f"{path}: every training value is {low:g}, so nothing can be learnt: check the"
                " file, or set data.source.value_range if that is meant."
            )
        moments = self._moments(values, train, path)
        decoder = None if self.decoder is None else Decoder(self.decoder)
        return Normalization(low, high, moments, decoder)

    def _moments(self, values: Array, train: Rows, path: Path) -> Moments | None:
        if self.standardize is False:
            return None
        if values.ndim != 4:
            raise UserError(
                f"{path} holds vectors, and data.source.standardize is for channels: leave it out."
            )
        mean, std = channel_moments(values, train) if self.standardize is True else self.standardize
        moments = as_moments(mean, std)
        if len(moments[0]) != values.shape[1] or 0 in moments[1]:
            raise UserError(
                f"{path} holds samples of {values.shape[1]} channels, of means {list(moments[0])}"
                f" and standard deviations {list(moments[1])}: data.source.standardize takes one of"
                " each per channel, and no channel that is constant."
            )
        return moments


def _load(path: Path, key: str | None = None) -> tuple[Array, Array | None]:
    """The array of samples, and the array of labels if the file has one."""
    if path.suffix not in (".npy", ".npz") or not path.is_file():
        raise UserError(f"{path} is not a .npy or .npz file: set data.source.root to one.")
    if path.suffix == ".npy" and key is not None:
        raise UserError(f"data.source.key is for an .npz, and {path} is one array: leave it out.")
    try:
        if path.suffix == ".npy":
            beside = path.with_suffix(".labels.npy")
            labels = np.load(beside, allow_pickle=False) if beside.is_file() else None
            return np.load(path, mmap_mode="r", allow_pickle=False), labels
        with np.load(path, allow_pickle=False) as archive:
            key = _sample_key(archive.files, key, path)
            label_key = next((k for k in LABEL_KEYS if k in archive and k != key), None)
            return archive[key], None if label_key is None else archive[label_key]
    except (ValueError, EOFError, OSError, BadZipFile, zlib.error, MemoryError) as error:
        raise UserError(
            f"{path} cannot be read as an array of numbers ({error}): save a plain numeric array "
            "with np.save or np.savez."
        ) from error


def _sample_key(keys: Sequence[str], chosen: str | None, path: Path) -> str:
    """The key of the samples among those of an archive."""
    wanted = SAMPLE_KEYS if chosen is None else (chosen,)
    found = next((key for key in wanted if key in keys), None)
    if found is not None:
        return found
    if not set(keys) - set(LABEL_KEYS):
        raise UserError(f"{path} holds no array of samples: save one under the key x.")
    raise UserError(
        f"{path} holds {', '.join(keys)} and nothing under {', '.join(wanted)}: set data.source.key"
        " to that of the samples."
    )


def _channels_first(values: Array, layout: Layout | None, path: Path) -> Array:
    """A view (N, d) or (N, C, H, W), refusing what cannot be one."""
    if values.dtype.kind not in "buif":
        raise UserError(f"{path} holds values of type {values.dtype}: save real numbers.")
    if values.ndim not in (2, 3, 4) or 0 in values.shape[1:]:
        raise UserError(
            f"{path} holds an array of shape {values.shape}: save (N, d), (N, H, W), "
            "(N, C, H, W) or (N, H, W, C)."
        )
    if len(values) < 2:
        raise UserError(f"{path} holds {len(values)} sample(s): at least 2 are needed.")
    return channels_first(values, layout, f"{path} holds samples")


def channels_first(values: Array, layout: Layout | None, what: str) -> Array:
    """(N, d), (N, H, W), (N, H, W, C) or (N, C, H, W) as a view (N, d) or (N, C, H, W).

    layout: as in :class:`Arrays`. Raises UserError, beginning with ``what``, for four axes that can
    be read in two ways without it, and for a layout of fewer.
    """
    shape = values.shape[1:]
    if len(shape) < 3:
        if layout is not None:
            raise UserError(
                f"{what} of shape {shape}, and data.source.layout is for three axes: leave it out."
            )
        return values[:, None] if len(shape) == 2 else values
    first, last = shape[0] in (1, 3), shape[2] in (1, 3)
    if layout is None and first == last:
        raise UserError(
            f"{what} of shape {shape}, whose channels may be the first axis or the last: set"
            " data.source.layout to CHW or HWC."
        )
    return np.moveaxis(values, 3, 1) if layout == "HWC" or (layout is None and last) else values


def _classes(labels: Array | None, count: int, path: Path) -> tuple[tuple[str, ...], Rows]:
    if labels is None:
        raise UserError(
            f"{path} holds no labels: save them in an .npz under y, or beside an .npy, or leave"
            " data.source.labels off."
        )
    if labels.shape != (count,) or labels.dtype.kind not in "iuU":
        raise UserError(
            f"{path} holds labels of shape {labels.shape} and type {labels.dtype}: save one "
            f"integer or name for each of its {count} samples."
        )
    return index_classes(labels)
