"""T6, T13: a memory that is asked to hold too much stops holding its points and holds their ring.

A stored point y is *still an attractor* at noise σ if the descent x ← D(x, σ) that starts at y
ends, at fixed σ, within δ = σ/5 of y. The K points lie at uniformly random angles on the unit
circle: on a regular ring the symmetry alone keeps every stored point's own minimum.
"""

import functools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import ive
from torch import Tensor

from energydiff.energies import EmpiricalData, Energy
from energydiff.memory import LogSumExpMemory

SIGMA = 0.1


def ring(count: int) -> Tensor:
    angles = torch.from_numpy(np.random.default_rng(0).uniform(0, 2 * math.pi, count))
    return torch.stack([angles.cos(), angles.sin()], 1)


@functools.cache
def descended(count: int) -> Tensor:
    """Where the descents from the stored points end."""
    x = ring(count)
    energy = EmpiricalData(x)
    for _ in range(1000):
        x = energy.denoise(x, SIGMA)
    return x


@pytest.mark.parametrize(("count", "fraction"), [(2, 1.00), (16, 0.44), (512, 0.12)])
def test_the_fraction_of_stored_points_that_are_still_attractors(
    count: int, fraction: float
) -> None:
    moved = (descended(count) - ring(count)).norm(dim=1)
    assert (moved < SIGMA / 5).double().mean().item() == pytest.approx(fraction, abs=0.005)


def test_a_crowded_ring_keeps_its_radius() -> None:
    """What forgets the points still knows the ring: every descent ends next to it."""
    assert (descended(512).norm(dim=1) - 1).abs().max() < 2 * SIGMA**2


# T6. As many points as it takes to be the circle itself


@pytest.mark.parametrize(("beta", "radius"), [(2, 0.831462), (5, 0.945542), (20, 0.987256)])
@pytest.mark.parametrize("stored", [False, True], ids=["data", "memory"])
def test_the_minimum_of_a_full_ring_is_a_smaller_ring(
    beta: float, radius: float, stored: bool
) -> None:
    """R = I1(2βR)/I0(2βR), β = 1/2σ², from inside and from outside."""
    angles = torch.arange(256, dtype=torch.float64) * 2 * math.pi / 256
    points, sigma = torch.stack([angles.cos(), angles.sin()], 1), (2 * beta) ** -0.5
    energy: Energy = LogSumExpMemory(2 * beta).store(points) if stored else EmpiricalData(points)
    x = torch.tensor([[0.1, 0.05], [-1.4, 0.3], [0.2, -2.0]], dtype=torch.float64)
    for _ in range(300):
        x = energy.denoise(x, 1.0 if stored else sigma)
    exact = brentq(lambda r: r - ive(1, 2 * beta * r) / ive(0, 2 * beta * r), 0.1, 1, xtol=1e-14)
    assert exact == pytest.approx(radius, abs=6e-7)
    assert (x.norm(dim=1) - exact).abs().max() < 1e-9
