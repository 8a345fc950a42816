"""Training data as one endless stream of images, counted from 0.

Image n of the stream, its flip, its σ and its noise are functions of (seed, n) alone. So a
resumed run only needs to know how many images it has seen, ranks share the stream by taking
their part of every batch, and two ranks with half the batch each see what one rank would. A
loader brings images and their counts; what is random about them is drawn where they are used.
"""

from collections.abc import Iterator, Sequence
from itertools import count as count_from

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from energydiff.data import Source
from energydiff.data.source import Locality, Rows
from energydiff.random import (
    CHOICES,
    HELD_OUT,
    ORDER,
    SHARDS,
    TRAINING,
    keyed_normal,
    keyed_order,
    keyed_uniform,
    open_unit,
)
from energydiff.training.stretches import Stretch

Item = dict[str, Tensor]


class TrainingStream(Dataset[Item]):
    """Image ``count`` of a run, for any count: ``raw`` (\\*shape), ``label`` () and ``count`` ().

    Each pass through the data is a fresh permutation, a function of (seed, pass number); see
    :func:`pass_order`.

    Args:
        stretches: what passes are made of, from image to image; all samples by default.
    """

    def __init__(self, source: Source, seed: int, stretches: Sequence[Stretch] = ()) -> None:
        self.source, self.seed = source, seed
        self.stretches = stretches or [Stretch(0, 0, source.places)]
        self._begun, self._order = (-1, -1), np.empty(0, dtype=np.int64)

    def __getitem__(self, count: int) -> Item:
        return _item(self.source, self.index(count), count)

    def index(self, count: int) -> int:
        """Which sample of the source image ``count`` is."""
        stretch = next(s for s in reversed(self.stretches) if s.start <= count)
        number, place = stretch.find(count)
        if (stretch.start, number) != self._begun:
            order = pass_order(stretch.places, self.source.locality, self.seed, number)
            self._begun, self._order = (stretch.start, number), order
        return int(self._order[place])


def pass_order(places: Rows, locality: Locality | None, seed: int, number: int) -> Rows:
    """The samples of pass ``number`` in its order, (N,); ``places`` are these samples, in any.

    Any permutation, but where samples lie in shards: these come in a random order, and each window
    of neighbouring samples is shuffled. A single window is any permutation again.
    """
    order = keyed_order(seed, [number], len(places), ORDER)[0].numpy()
    if locality is not None:
        # Shards count as they come, so that others beside them change nothing.
        met, shards = np.unique(locality.shards[places], return_inverse=True)
        turn = keyed_order(seed, [number], len(met), SHARDS)[0].numpy()
        window = np.empty_like(order)
        window[np.argsort(turn[shards], kind="stable")] = np.arange(len(order)) // locality.window
        order = order[np.argsort(window[order], kind="stable")]
    return places[order]


class HeldOut(Dataset[Item]):
    """The held-out samples in their order, as items like those of :class:`TrainingStream`."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Item:
        return _item(self.source, index, index)


class CountedBatches(Sampler[list[int]]):
    """Endless batches of counts, from image ``start`` on, for one rank of several.

    Args:
        batch_size: images per batch, over all ranks.
        rank, world_size: this rank takes its contiguous part of every batch.
    """

    def __init__(self, batch_size: int, start: int, rank: int = 0, world_size: int = 1) -> None:
        self.batch_size, self.start = batch_size, start
        self.rank, self.part = rank, batch_size // world_size

    def __iter__(self) -> Iterator[list[int]]:
        for first in count_from(self.start + self.rank * self.part, self.batch_size):
            yield list(range(first, first + self.part))


def with_training_draws(batch: Item, seed: int, flip: bool) -> Item:
    """A batch of :class:`TrainingStream`, randomised, on its device.

    ``raw`` is mirrored left to right in half of the images if ``flip``. ``noise`` is standard
    normal like raw, float32; ``uniform`` (B, 2) in (0, 1), for σ and for hiding the label.
    """
    counts, raw = batch["count"], batch["raw"]
    choices = keyed_uniform(seed, counts, 3, CHOICES)
    if flip:
        mirrored = (choices[:, 2] < 0.5)[:, None, None, None]
        raw = torch.where(mirrored, raw.flip(-1), raw)
    noise = keyed_normal(seed, counts, raw.shape[1:], TRAINING)
    return batch | {"raw": raw, "noise": noise, "uniform": choices[:, :2]}


def with_held_out_draws(batch: Item, seed: int) -> Item:
    """The same of :class:`HeldOut`: fixed noise, every label shown, and σ evenly through its
    distribution, whose quantiles multiples of the golden ratio fill whatever their number."""
    counts = batch["count"]
    level = open_unit(counts * 0x9E3779B9 + (1 << 31))  # 2³² (√5 − 1)/2, from the median on
    noise = keyed_normal(seed, counts, batch["raw"].shape[1:], HELD_OUT)
    return batch | {"noise": noise, "uniform": torch.stack([level, torch.ones_like(level)], 1)}


def _item(source: Source, index: int, count: int) -> Item:
    raw, label = source[index]
    return {"raw": raw, "label": torch.tensor(label), "count": torch.tensor(count)}
