"""Map-style data sets of other libraries, whose items become samples when they are asked for.

An item is (sample, label, …), a sample alone, or a mapping with the two under keys. A sample is

    a PIL image                        uint8 (1 or 3, H, W), by the rules of ``decode``
    bytes                              the same of an encoded image
    {"bytes": …} or {"path": …}        also of an encoded image, or of its file
    an array or tensor                 its axes read as in ``arrays``, without the first

uint8 is taken as 0..255; other numbers become float32 and need a ``value_range``.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from energydiff.data.arrays import Layout, channels_first
from energydiff.data.decode import Colour, decode_image, image_pixels, parse_colour
from energydiff.data.normalization import Normalization
from energydiff.data.source import (
    Locality,
    Rows,
    Source,
    Splits,
    index_classes,
    index_names,
)
from energydiff.data.spec import DataSpec
from energydiff.data.split import HELD_OUT, split_rows
from energydiff.data.values import UnreadableImage
from energydiff.errors import UserError
from energydiff.progress import with_progress

Labels = NDArray[Any]


class Items(NamedTuple):
    """A map-style data set, and what it tells without being read.

    values: has ``len`` and items by number. where: its name in messages. labels: of every item,
    (N,), and classes their names, where it has them. names: of the items, where they have other
    ones than their numbers. locality: as of a source.
    """

    values: Any
    where: str
    labels: Labels | None = None
    classes: tuple[str, ...] = ()
    names: Sequence[str] | None = None
    locality: Locality | None = None

    def what(self, i: int) -> str:
        """Item i in messages."""
        return f"{f'item {i}' if self.names is None else self.names[i]} of {self.where}"

    def read(self, i: int) -> Any:
        """Item i."""
        try:
            return self.values[i]
        except OSError as error:  # in a worker of a loader it would be a traceback
            raise UserError(f"{self.what(i)} cannot be read ({error}): restore it.") from error


@dataclass(frozen=True, kw_only=True)
class ItemSpec(DataSpec):
    """What the sources of items share.

    Args:
        image: key of the sample in an item that is a mapping.
        label: key of the class label in such an item.
        image_size: pixels to a side of an image to be decoded; by default its own.
        channels: 1 for grey, 3 for RGB, of an image to be decoded; by default its own.
        layout: the axes of an array of three: channels first or last; needed unless one of these
            two axes is 1 or 3 long and the other is not.
        background: what is seen through transparent pixels of an image to be decoded: a colour name
            or '#rrggbb'.
        draft: decode large JPEGs at a lower resolution that is still twice ``image_size``.
        value_range: raw values that become -1 and 1; needed unless samples are bytes.
        held_out: share of items kept out of training, chosen by a hash of their numbers, where
            no part is published or given for that.
        check: read every item once when the data are opened, so that one that differs from the
            others shows at once; without it, such an item ends the run that meets it.
    """

    image: str = "image"
    label: str = "label"
    image_size: int | None = None
    channels: Literal[1, 3] | None = None
    layout: Layout | None = None
    background: str = "white"
    draft: bool = False
    value_range: tuple[float, float] | None = None
    held_out: float = HELD_OUT
    check: bool = True

    def splits(self, train: Items, held_out: Items | None) -> Splits:
        """The two parts as sources; one set of items is split by the hash of their numbers.

        Raises:
            UserError: an item that cannot be read or differs from the first, and labels that are
                missing or are neither whole numbers nor strings.
        """
        parts = [train] if held_out is None else [train, held_out]
        for part in parts:
            if not len(part.values):
                raise UserError(f"{part.where} holds no items: samples are needed.")
        background = parse_colour(self.background)
        how = self.channels, self.image_size, background, self.draft
        reader = Reader(self.image, self.layout, how)
        item, what = train.read(0), train.what(0)
        first, decoded = reader(item, what), _is_picture(reader.sample_in(item, what))
        normalization = self._normalization(first, train.where)
        prefixes = ("train/", "held_out/") if held_out else ("",)
        sources = [
            ItemSource(
                part,
                reader,
                first.dtype,
                tuple(first.shape),
                normalization,
                part.names or index_names(len(part.values), prefix),
            )
            for part, prefix in zip(parts, prefixes, strict=True)
        ]
        for source in sources:
            source.decoded = decoded
        labels = [self._read(source, part) for source, part in zip(sources, parts, strict=True)]
        if self.labels:
            classes, indices = _classes(labels, train)
            for source, mine in zip(sources, indices, strict=True):
                source.classes, source.labels = classes, mine
        if held_out:
            return Splits(*sources)
        whole = sources[0]
        mine, held = split_rows(self.pictures(whole.names), self.held_out, train.where)
        return Splits(whole.select(mine), whole.select(held))

    def pictures(self, names: Sequence[str]) -> Sequence[str]:
        """What the hash is taken of that decides an item's side."""
        return names

    def _normalization(self, first: Tensor, where: str) -> Normalization:
        if self.value_range is None and first.dtype != torch.uint8:
            raise UserError(
                f"the items of {where} are not bytes, so their range is not known: set"
                " data.source.value_range to the raw values that become -1 and 1."
            )
        return Normalization(*(self.value_range or (0, 255)))

    def _read(self, source: "ItemSource", part: Items) -> Labels:
        """The labels of a part; empty where none are asked for. Checks every item if need be."""
        wanted = self.labels and part.labels is None
        if not (self.check or wanted):
            return np.empty(0) if part.labels is None else part.labels
        found = []
        for i in with_progress(range(len(source)), len(source), f"Reading {part.where}"):
            item = part.read(i)
            if self.check:
                sample = source.sample(item, i)
                if not sample.isfinite().all():
                    raise UserError(
                        f"{part.what(i)} holds a value that is not finite: repair or remove it."
                    )
            if wanted:
                found.append(self._label(item, part.what(i)))
        return np.asarray(found) if part.labels is None else part.labels

    def _label(self, item: Any, what: str) -> Any:
        if isinstance(item, Mapping):
            label = pick(item, self.label, what, "label")
        elif isinstance(item, tuple | list) and len(item) > 1:
            label = item[1]
        else:
            raise UserError(f"{what} has no label: leave data.source.labels off.")
        return label.item() if isinstance(label, Tensor | np.generic | np.ndarray) else label


@dataclass(frozen=True)
class Reader:
    """Makes a raw sample, uint8 or float32 (\\*shape), of an item.

    image, layout: as of ItemSpec. how: the arguments of ``decode_image`` after the file.
    """

    image: str
    layout: Layout | None
    how: tuple[Literal[1, 3] | None, int | None, Colour, bool]

    def __call__(self, item: Any, what: str) -> Tensor:
        """``UserError``, beginning with ``what``, for an item that is none of the above."""
        item = self.sample_in(item, what)
        try:
            if isinstance(item, Image.Image):
                pixels = image_pixels(item, *self.how)
            elif isinstance(item, Mapping | bytes):
                pixels = decode_image(_encoded(item, what), *self.how)
            else:
                return self._array(item, what)
        except UnreadableImage as error:
            raise UserError(f"{what} cannot be read ({error}): repair or remove it.") from error
        if self.layout is not None:
            raise UserError(
                f"data.source.layout is for arrays, and {what} is a picture: leave it out."
            )
        return torch.from_numpy(pixels)

    def sample_in(self, item: Any, what: str) -> Any:
        """The sample of an item, as it is."""
        if isinstance(item, Mapping):
            return pick(item, self.image, what, "image")
        return item[0] if isinstance(item, tuple | list) and item else item

    def _array(self, item: Any, what: str) -> Tensor:
        values = np.asarray(item.detach().cpu() if isinstance(item, Tensor) else item)
        if values.dtype.kind not in "buif" or values.ndim not in (1, 2, 3) or not values.size:
            raise UserError(
                f"{what} is a {type(item).__name__} of shape {values.shape} and type"
                f" {values.dtype}: give a picture, or real numbers (d,), (H, W), (C, H, W) or"
                " (H, W, C)."
            )
        for option, value in zip(("channels", "image_size"), self.how[:2], strict=True):
            if value is not None:
                raise UserError(
                    f"data.source.{option} is for pictures, and {what} is an array: leave it out."
                )
        dtype = np.uint8 if values.dtype == np.uint8 else np.float32
        sample = channels_first(values[None], self.layout, f"{what} is an array")[0]
        return torch.from_numpy(np.array(sample, dtype, order="C"))


class ItemSource(Source):
    """Items read when a sample is asked for; ``dtype`` and ``shape`` are those of the first."""

    def __init__(self, items: Items, reader: Reader, dtype: torch.dtype, *args: Any) -> None:
        super().__init__(*args)
        self._items, self._reader, self._dtype = items, reader, dtype
        self.locality = items.locality

    def _read(self, i: int) -> Tensor:
        row = int(self._rows[i])
        return self.sample(self._items.read(row), row)

    def sample(self, item: Any, row: int) -> Tensor:
        """An item as a sample; ``UserError`` unless it is of the first one's kind."""
        sample = self._reader(item, self._items.what(row))
        if sample.shape != self.shape or sample.dtype != self._dtype:
            raise UserError(
                f"{self._items.what(row)} is {_kind(sample.dtype, sample.shape)}, the first is"
                f" {_kind(self._dtype, self.shape)}: set data.source.image_size and"
                " data.source.channels for pictures, and give arrays of one shape and type."
            )
        return sample


def pick(item: Mapping[str, Any], key: str, what: str, option: str) -> Any:
    """``item[key]``; ``UserError`` naming what is there."""
    if key not in item:
        raise UserError(
            f"{what} has no {key}, only {', '.join(map(str, item))}: set data.source.{option}."
        )
    return item[key]


def _is_picture(sample: Any) -> bool:
    """Whether it is to be decoded, and no array."""
    return isinstance(sample, Image.Image | Mapping | bytes)


def _encoded(item: Mapping[str, Any] | bytes, what: str) -> Path | io.BytesIO:
    """The file, in memory or on this machine, of an encoded image."""
    content = item if isinstance(item, bytes) else item.get("bytes")
    if content is not None:
        return io.BytesIO(content)
    assert isinstance(item, Mapping)
    path = item.get("path")
    if path is None or not Path(path).is_file():
        raise UserError(f"{what} refers to the file {path}, which is not on this machine.")
    return Path(path)


def _classes(labels: Sequence[Labels], train: Items) -> tuple[tuple[str, ...], list[Rows]]:
    """Class names, and the class indices of each part."""
    values = np.concatenate(labels)
    if values.ndim != 1 or values.dtype.kind not in "biuU":
        raise UserError(
            f"the labels of {train.where} are of type {values.dtype} and shape"
            f" {values.shape[1:]} each: give one whole number or one string per item, or leave"
            " data.source.labels off."
        )
    classes, indices = train.classes, values
    if not classes or values.dtype.kind == "U":
        classes, indices = index_classes(values)
    if indices.min() < 0 or indices.max() >= len(classes):
        raise UserError(
            f"the labels of {train.where} run from {values.min()} to {values.max()}, but it names"
            f" {len(classes)} classes: give labels from 0 to {len(classes) - 1}, or leave"
            " data.source.labels off."
        )
    ends = np.cumsum([len(part) for part in labels])[:-1]
    return classes, np.split(indices.astype(np.int64), ends)


def _kind(dtype: torch.dtype, shape: Sequence[int]) -> str:
    return f"{str(dtype).removeprefix('torch.')} {tuple(shape)}"
