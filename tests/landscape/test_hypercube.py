"""T7: the hypercube {±a}^D, whose V is a sum over coordinates: the critical points have theirs in
{0, ±x*}, and those with k zeros, C(D, k)·2^(D − k) of them, have index k."""

import math
from collections import Counter

import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor

from energydiff.energies import EmpiricalData, Energy
from energydiff.landscape.critical import distinct, examine
from energydiff.landscape.search import descend, newton
from energydiff.landscape.surface import Surface

A, SIGMA = 0.8, 0.55
WELL = brentq(lambda x: x - A * math.tanh(A * x / SIGMA**2), 0.1, A, xtol=1e-15)


class Hypercube(Energy):
    """E of 2^D points without listing them."""

    exact = True

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.shape = (dim,)

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        s = sigma[:, None]
        both = torch.stack([-((x - a) ** 2) / (2 * s**2) for a in (A, -A)]).logsumexp(0)
        return (0.5 * torch.log(8 * math.pi * s**2) - both).sum(1)


def starts(count: int, dim: int, seed: int) -> Tensor:
    return A * (2 * torch.rand(count, dim, generator=torch.Generator().manual_seed(seed)) - 1)


def zeros(x: Tensor) -> Tensor:
    """How many coordinates are 0, (n,); all others must be ±x*."""
    nearest = torch.stack([(x.abs() - value).abs() for value in (0, WELL)])
    assert float(nearest.amin(0).max()) < 1e-6
    return (nearest[0] < nearest[1]).sum(1)


def test_the_energy_is_that_of_the_corners() -> None:
    corners = A * torch.cartesian_prod(*[torch.tensor([-1.0, 1.0]).double()] * 3)
    x, sigma = starts(5, 3, 0).double(), 0.4
    there = EmpiricalData(corners)(x, sigma)
    assert torch.allclose(Hypercube(3)(x, sigma), there, rtol=1e-12)


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 5, 6])
def test_all_critical_points_are_found(dim: int) -> None:
    """By Newton from random places, away from those found, until Σ (−1)^index = 1 and the counts
    stay; 3^D of them, each with the index its coordinates say."""
    surface, known = Surface(Hypercube(dim)), torch.zeros(0, dim).double()
    for seed in range(40):
        x = surface.flat(starts(60 * dim, dim, seed))
        repelled = known if len(known) and seed % 2 else None
        found = newton(surface, x, SIGMA, None, steps=40, known=repelled)
        known = torch.cat([known, found.x[found.converged]])
        known = known[distinct(known, 1e-4)]
        if len(known) >= 3**dim:
            break
    points = examine(surface, known, SIGMA)
    expected = {k: math.comb(dim, k) * 2 ** (dim - k) for k in range(dim + 1)}
    assert Counter(points.index.tolist()) == expected
    assert points.euler_sum == 1 and bool(points.trusted.all())
    assert points.index.tolist() == zeros(points.x).tolist()


@pytest.mark.parametrize("dim", [12, 30, 50])
@pytest.mark.parametrize("index", [None, 0, 1, 3])
def test_of_too_many_a_sample_has_the_right_indices(dim: int, index: int | None) -> None:
    """Beyond 10,000 points: whatever is found is one of them, with the index sought."""
    surface = Surface(Hypercube(dim))
    x = surface.flat(starts(60, dim, dim))
    found = newton(surface, x, SIGMA, index, steps=100)
    assert float(found.converged.double().mean()) > 0.9
    points = examine(surface, found.x[found.converged], SIGMA)
    assert points.index.tolist() == zeros(points.x).tolist()
    if index is None:
        assert int(points.index.max()) > dim // 8  # of many indices
    else:
        assert float((points.index == index).double().mean()) > 0.9


@pytest.mark.parametrize("dim", [3, 50])
def test_enough_noise_leaves_one_minimum(dim: int) -> None:
    surface, sigma = Surface(Hypercube(dim)), 1.02 * A
    found = newton(surface, descend(surface, surface.flat(starts(20, dim, 1)), sigma), sigma)
    assert bool(found.converged.all()) and float(found.x.abs().max()) < 1e-6
    assert examine(surface, found.x[:1], sigma).index.tolist() == [0]
