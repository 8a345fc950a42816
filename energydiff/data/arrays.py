"""Samples from one ``.npy`` or ``.npz`` file.

The axes are read as

    (N, d)          vectors
    (N, H, W)       grey images
    (N, H, W, C)    when the last axis is 1 or 3 and the second is not
    (N, C, H, W)    otherwise

uint8 is taken as 0..255. Other numbers become float32, and their range is the smallest to the
largest value of the training part unless one is given. An ``.npy`` file is mapped, not loaded.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from energydiff.data.normalization import Normalization
from energydiff.data.source import ArraySource, Rows, Splits, index_classes, index_names
from energydiff.data.spec import DataSpec
from energydiff.data.split import HELD_OUT, split_rows
from energydiff.errors import UserError

Array = NDArray[Any]
SAMPLE_KEYS = ("x", "images", "data")
LABEL_KEYS = ("y", "labels")
SCAN_BYTES = 2**24


class MappedSource(ArraySource):
    """Rows of a mapped ``.npy`` file; a pickled copy maps the file again instead of holding it."""

    def __init__(self, path: Path, values: Array, *args: Any, **kwargs: Any) -> None:
        super().__init__(values, *args, **kwargs)
        self._path = path

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_values": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._values = _channels_first(_load(self._path)[0], self._path)


@dataclass(frozen=True)
class Arrays(DataSpec):
    """Samples of one ``.npy`` or ``.npz`` file; class labels are its array y or labels.

    Args:
        root: the file.
        held_out: share of samples kept out of training, chosen by a hash of their numbers.
        value_range: raw values that become -1 and 1; by default 0 and 255 of uint8, and of other
            numbers the smallest and the largest of the training part.
    """

    root: Path | str
    held_out: float = HELD_OUT
    value_range: tuple[float, float] | None = None

    def open(self) -> Splits:
        """Refuses a file that is not an array of finite real numbers with the axes above, and
        labels that are missing or are not one integer per sample."""
        path = Path(self.root).expanduser()
        loaded, loaded_labels = _load(path)
        values = _channels_first(loaded, path)
        classes, indices = _classes(loaded_labels, len(values), path) if self.labels else ((), None)
        names = index_names(len(values))
        train, held = split_rows(names, self.held_out, str(path))
        normalization = _normalization(values, train, self.value_range, path)
        source = (
            MappedSource(path, values, normalization, names, classes, indices)
            if path.suffix == ".npy"
            else ArraySource(values, normalization, names, classes, indices)
        )
        return Splits(source.select(train), source.select(held))


def _load(path: Path) -> tuple[Array, Array | None]:
    """The array of samples, and the array of labels if the file has one."""
    if path.suffix not in (".npy", ".npz") or not path.is_file():
        raise UserError(f"{path} is not a .npy or .npz file: set data.source.root to one.")
    try:
        if path.suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False), None
        with np.load(path, allow_pickle=False) as archive:
            label_key = next((key for key in LABEL_KEYS if key in archive), None)
            others = [key for key in archive.files if key not in LABEL_KEYS]
            key = next((key for key in (*SAMPLE_KEYS, *others) if key in archive), None)
            if key is None:
                raise UserError(f"{path} holds no array of samples: save one under the key x.")
            return archive[key], None if label_key is None else archive[label_key]
    except (ValueError, EOFError, OSError, BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path} cannot be read as an array of numbers ({error}): save a plain numeric array "
            "with np.save or np.savez."
        ) from error


def _channels_first(values: Array, path: Path) -> Array:
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
    return channels_first(values)


def channels_first(values: Array) -> Array:
    """(N, d), (N, H, W), (N, H, W, C) or (N, C, H, W) as a view (N, d) or (N, C, H, W)."""
    if values.ndim == 3:
        return values[:, None]
    if values.ndim == 4 and values.shape[3] in (1, 3) and values.shape[1] not in (1, 3):
        return np.moveaxis(values, 3, 1)
    return values


def _classes(labels: Array | None, count: int, path: Path) -> tuple[tuple[str, ...], Rows]:
    if labels is None:
        raise UserError(
            f"{path} holds no labels: save them in an .npz under y, or leave data.source.labels"
            " off."
        )
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise UserError(
            f"{path} holds labels of shape {labels.shape} and type {labels.dtype}: save one "
            f"integer for each of its {count} samples."
        )
    return index_classes(labels)


def _normalization(
    values: Array, train: Rows, value_range: tuple[float, float] | None, path: Path
) -> Normalization:
    """The range of the data: given, that of uint8, or measured on the training part."""
    if values.dtype == np.uint8:
        return Normalization(*(value_range or (0, 255)))
    lowest, highest = _extremes(values)
    finite = np.isfinite(lowest) & np.isfinite(highest)
    if not finite.all():
        raise UserError(
            f"{path}: sample {np.argmin(finite)} holds a value that is not finite in float32; "
            "repair or remove it."
        )
    low, high = value_range or (float(lowest[train].min()), float(highest[train].max()))
    if value_range is None and low == high:
        raise UserError(f"{path}: every training value is {low}; set data.source.value_range.")
    return Normalization(low, high)


def _extremes(values: Array) -> tuple[Array, Array]:
    """The smallest and the largest value of every sample, each (N,) float32."""
    lowest, highest = np.empty((2, len(values)), np.float32)
    rows = max(1, SCAN_BYTES // values[0].nbytes)  # a mapped file may exceed the memory
    for start in range(0, len(values), rows):
        part = slice(start, start + rows)
        with np.errstate(over="ignore"):  # an overflow to infinity is reported by the caller
            chunk = values[part].reshape(len(values[part]), -1).astype(np.float32)
        lowest[part], highest[part] = chunk.min(axis=1), chunk.max(axis=1)
    return lowest, highest
