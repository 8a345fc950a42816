"""Training data as one endless stream of images, counted from 0.

Image n of the stream, its flip, its σ and its noise are functions of (seed, n) alone. So a
resumed run only needs to know how many images it has seen, ranks share the stream by taking
their part of every batch, and two ranks with half the batch each see what one rank would.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from energydiff.data import Source
from energydiff.random import HELD_OUT, TRAINING, keyed_generator

Item = dict[str, Tensor]


class TrainingStream(Dataset[Item]):
    """Looks up (count, place) pairs: the sample there, randomised as image ``count`` of a run.

    An item has ``raw`` (\\*shape), ``label`` (), ``noise`` (\\*shape) standard normal float32,
    ``uniform`` (2,) in (0, 1) for σ and for dropping the label, ``index`` () and ``count`` ().
    """

    def __init__(self, source: Source, seed: int, flip: bool = False) -> None:
        self.source, self.seed, self.flip = source, seed, flip

    def __getitem__(self, key: tuple[int, int]) -> Item:
        count, index = key[0], int(self.source.places[key[1]])
        draws = keyed_generator(self.seed, count, TRAINING)
        raw, label = self.source[index]
        uniform = _open_uniform(draws, 3)
        if self.flip and uniform[2] < 0.5:
            raw = raw.flip(-1)
        return _item(raw, label, uniform[:2], draws, index, count)


class HeldOut(Dataset[Item]):
    """The held-out samples, each with fixed noise; σ runs evenly through its distribution."""

    def __init__(self, source: Source, seed: int) -> None:
        self.source, self.seed = source, seed

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Item:
        raw, label = self.source[index]
        # Multiples of the golden ratio fill (0, 1) evenly whatever their number.
        level = (0.5 + 0.6180339887498949 * index) % 1.0
        draws = keyed_generator(self.seed, index, HELD_OUT)
        return _item(raw, label, np.array([level, 1.0]), draws, index, index)


class CountedBatches(Sampler[list[tuple[int, int]]]):
    """Endless batches of (count, place), from image ``start`` on, for one rank of several.

    Each pass through the data is a fresh permutation, a function of (seed, pass number).

    Args:
        size: number of places in a pass.
        batch_size: images per batch, over all ranks.
        rank, world_size: this rank takes its contiguous part of every batch.
    """

    def __init__(
        self, size: int, batch_size: int, seed: int, start: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.size, self.batch_size, self.seed, self.start = size, batch_size, seed, start
        self.rank, self.part = rank, batch_size // world_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = -1, np.empty(0, dtype=np.int64)
        batch_start = self.start
        while True:
            first = batch_start + self.rank * self.part
            batch = []
            for count in range(first, first + self.part):
                if count // self.size != epoch:
                    epoch = count // self.size
                    # Permutations sit below 0, where no image of the stream does.
                    draws = keyed_generator(self.seed, -1 - epoch, TRAINING)
                    order = draws.permutation(self.size)
                batch.append((count, int(order[count % self.size])))
            yield batch
            batch_start += self.batch_size


def _open_uniform(draws: np.random.Generator, count: int) -> np.ndarray:
    """Uniform numbers strictly inside (0, 1), so that every quantile is finite."""
    uniform = (draws.integers(0, 1 << 24, count) + 0.5) / (1 << 24)
    return np.minimum(uniform, 1 - 2.0**-24)  # float32 would round the highest up to 1


def _item(
    raw: Tensor,
    label: int,
    uniform: np.ndarray,
    draws: np.random.Generator,
    index: int,
    count: int,
) -> Item:
    noise = draws.standard_normal(tuple(raw.shape), dtype=np.float32)
    return {
        "raw": raw,
        "label": torch.tensor(label),
        "uniform": torch.from_numpy(uniform.astype(np.float32)),
        "noise": torch.from_numpy(noise),
        "index": torch.tensor(index),
        "count": torch.tensor(count),
    }
