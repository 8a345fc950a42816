"""What a source of samples is, and the source whose samples are the rows of an array."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from energydiff.data.normalization import Normalization
from energydiff.progress import with_progress

Rows = NDArray[np.int64]
NO_LABEL = -1
# Of float32 samples taken into memory at once, where only so many are asked for.
STACK_BYTES = 2**29


class Locality(NamedTuple):
    """Where samples lie: what is asked for together should lie together.

    shards: the number of the shard that each sample lies in, (N,).
    window: how many neighbouring samples are shuffled among themselves, shard after shard.
    """

    shards: Rows
    window: int


class Source(Dataset[tuple[Tensor, int]], ABC):
    """An indexable set of raw samples, each with a class index, or -1 when there are no labels.

    shape: of one sample, (C, H, W) or (d,).
    normalization: maps raw values to the model's range; samples are handed out raw.
    classes: the name of every class index; empty when there are no labels.
    names: one stable name per sample, which decides its split and is used in messages.
    labels: the class index of every sample, (N,).
    places: the samples that one pass of training takes, in any order, (N,) or more: a sample that
        was left out leaves its place to the next, so that the other places stay as they were.
    remarks: what else to know of all the data, in words.
    decoded: whether a sample is a picture that is decoded whenever it is asked for.
    locality: where samples lie, for a source that is slow to read in any order.
    """

    remarks: tuple[str, ...] = ()
    decoded = False
    locality: Locality | None = None

    def __init__(
        self,
        shape: tuple[int, ...],
        normalization: Normalization,
        names: Sequence[str],
        classes: tuple[str, ...] = (),
        labels: Rows | None = None,
    ) -> None:
        self.shape = shape
        self.normalization = normalization
        self.names = names
        self.classes = classes
        self.labels = np.full(len(names), NO_LABEL) if labels is None else labels
        self._rows = self.places = np.arange(len(names))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        """Sample i, uint8 or float32 of shape ``shape``, and its class index."""
        return self._read(i), int(self.labels[i])

    @abstractmethod
    def _read(self, i: int) -> Tensor:
        """Sample i; raises IndexError past the end."""

    def select(self, rows: Rows) -> Self:
        """The same source with only the samples at these indices, in this order."""
        part = copy.copy(self)
        part.names = [self.names[row] for row in rows]
        part.labels = self.labels[rows]
        part._rows = self._rows[rows]
        part.places = np.arange(len(rows))
        if self.locality is not None:
            part.locality = self.locality._replace(shards=self.locality.shards[rows])
        return part

    def shuffled(self, seed: int) -> Self:
        """All samples in an order that their names and a seed decide, whatever lies beside them."""
        keys = [hash_name(f"{seed}/{name}") for name in self.names]
        return self.select(np.array(sorted(range(len(self)), key=keys.__getitem__), np.int64))

    def spread(self, count: int) -> Self:
        """``count`` samples or all, evenly spread: class folders lie one class after another."""
        count = min(count, len(self))
        return self.select(np.linspace(0, len(self) - 1, count).round().astype(np.int64))

    def clean(self, count: int | None = None) -> Tensor:
        """Evenly spread samples in model coordinates, (N, \\*shape) float32; all by default.

        count: N, or fewer where so many would take more than half a GiB.
        """
        part = self
        if count is not None:
            part = self.spread(min(count, max(1, STACK_BYTES // (4 * math.prod(self.shape)))))
        found = torch.empty(len(part), *self.shape)
        for i in with_progress(range(len(part)), len(part), "Reading samples"):
            found[i] = self.normalization.encode(part[i][0])
        return found

    def mean_square(self, count: int) -> float:
        """Of ``count`` evenly spread samples or all, in model coordinates, one after another."""
        part, total = self.spread(count), 0.0
        for i in with_progress(range(len(part)), len(part), "Measuring the data's RMS"):
            total += float(self.normalization.encode(part[i][0]).double().square().mean())
        return total / len(part)


class Splits(NamedTuple):
    """The samples to fit and the samples that fitting never sees."""

    train: Source
    held_out: Source


class ArraySource(Source):
    """Rows of an array (N, \\*shape), in memory or mapped: uint8 stays, all else is float32."""

    def __init__(self, values: NDArray[Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(values.shape[1:], *args, **kwargs)
        self._values = values
        self._dtype = np.uint8 if values.dtype == np.uint8 else np.float32

    def _read(self, i: int) -> Tensor:
        return torch.from_numpy(np.array(self._values[self._rows[i]], self._dtype, order="C"))


def hash_name(name: str) -> int:
    """A number below 2^64 that chance may as well have drawn, but the name alone decides."""
    # File names that are not valid UTF-8 reach Python with surrogates in them.
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def index_names(count: int, prefix: str = "") -> list[str]:
    """Names for samples that have none: their number."""
    return [f"{prefix}{i:06d}" for i in range(count)]


def index_classes(labels: NDArray[Any]) -> tuple[tuple[str, ...], Rows]:
    """Class names and class indices (N,) of the label values (N,), in rising order of value.

    Names that are all whole numbers are in the order of these: 2 before 10.
    """
    values, indices = np.unique(labels, return_inverse=True)
    names = [str(value) for value in values]
    if all(name.isdecimal() and name.isascii() for name in names):
        order = sorted(range(len(names)), key=lambda i: (int(names[i]), names[i]))
        names, indices = [names[i] for i in order], np.argsort(order)[indices]
    return tuple(names), indices.astype(np.int64)
