"""Randomness keyed by what it belongs to, not by when it was asked for.

A diffusion run draws noise for *this* training image and for *that* sample. Keyed by
``(seed, index)`` in a counter-based generator (Philox: Salmon et al. 2011), the draw is the same
whatever the batch size, the number of ranks or the point at which a run was resumed.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

# Streams keep the uses of one (seed, index) apart.
TRAINING, HELD_OUT, SAMPLING, CALIBRATION, PROBE, CORRUPTION, TRACE, LIKELIHOOD = range(8)

_MASK = (1 << 64) - 1


def keyed_generator(seed: int, index: int, stream: int) -> np.random.Generator:
    """The generator of draw ``index`` under ``seed`` in one of the module's streams."""
    key = np.array([int(seed) & _MASK, int(index) & _MASK], dtype=np.uint64)
    # The stream sits in the highest counter word, which no draw ever reaches by counting up.
    counter = np.array([0, 0, 0, stream], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def keyed_normal(
    seed: int, indices: Iterable[int], shape: tuple[int, ...], stream: int = SAMPLING
) -> Tensor:
    """Standard normal noise, one independent draw per index: (len(indices), *shape), float32."""
    draws = [
        keyed_generator(seed, index, stream).standard_normal(shape, dtype=np.float32)
        for index in indices
    ]
    return torch.from_numpy(np.stack(draws)) if draws else torch.empty(0, *shape)


def keyed_signs(
    seed: int, indices: Iterable[int], shape: tuple[int, ...], stream: int = TRACE
) -> Tensor:
    """Rademacher noise, ±1 with equal chance, drawn as :func:`keyed_normal` draws."""
    return torch.where(keyed_normal(seed, indices, shape, stream) < 0, -1.0, 1.0)


def sample_seed(seed: int, number: int) -> int:
    """The seed of one sample of a set; distinct for distinct (seed, number)."""
    return (seed << 32) + number
