"""Morse graphs that were never computed, with what decides a picture given."""

from collections.abc import Callable, Sequence

import pytest
import torch

from energydiff.landscape.critical import CriticalPoints
from energydiff.landscape.morse import MorseGraph

Maker = Callable[[Sequence[float], Sequence[tuple[float, int, int]]], MorseGraph]
SHAPE = (1, 6, 6)


def points(values: Sequence[float], index: int, seed: int) -> CriticalPoints:
    """Images of these V."""
    count = len(values)
    noise = torch.Generator().manual_seed(seed)
    x = 2 * torch.rand(count, *SHAPE, generator=noise, dtype=torch.float64) - 1
    value, one = torch.tensor(values, dtype=torch.float64), torch.ones(count, dtype=torch.float64)
    return CriticalPoints(
        x=x,
        sigma=0.3 * one,
        index=torch.full((count,), index),
        free_energy=value,
        energy=value / 0.09,
        grad_norm=0 * one,
        eigenvalues=one[:, None],
        modes=x[:, None],
        margin=one,
        newton=0 * one,
        proved=torch.zeros(count, dtype=torch.bool),
    )


@pytest.fixture(scope="session")
def make_graph() -> Maker:
    """From the V of minima, and of saddles V and the two minima that each leads down to."""

    def make(minima: Sequence[float], saddles: Sequence[tuple[float, int, int]]) -> MorseGraph:
        ends = torch.tensor([ends for _, *ends in saddles], dtype=torch.int64).view(-1, 2)
        return MorseGraph(
            points(minima, 0, 0),
            points([value for value, *_ in saddles], 1, 1),
            ends,
            torch.full_like(ends, -1),
            torch.zeros_like(ends, dtype=torch.bool),
        )

    return make


@pytest.fixture(scope="session")
def random_graph(make_graph: Maker) -> MorseGraph:
    """60 minima in two parts of 40 and 20, and more saddles than it takes to join them."""
    noise = torch.Generator().manual_seed(0)

    def chance(*shape: int) -> list[float]:
        return torch.rand(*shape, generator=noise, dtype=torch.float64).tolist()

    minima = sorted(chance(60))
    pairs = [(i, int(share * i)) for i, share in enumerate(chance(40)) if i]
    pairs += [(40 + i, 40 + int(share * i)) for i, share in enumerate(chance(20)) if i]
    pairs += [(int(40 * a), int(40 * b)) for a, b in zip(chance(30), chance(30), strict=True)]
    rises = chance(len(pairs))
    saddles = [
        (max(minima[a], minima[b]) + r / 2, a, b) for (a, b), r in zip(pairs, rises, strict=True)
    ]
    return make_graph(minima, saddles)
