"""The arms beside sequential Monte Carlo are what they are said to be."""

import math

import pytest
import torch
from torch import Tensor

from benchmarks.composition.closed_forms import COMPOSED
from benchmarks.composition.correctors import corrected
from benchmarks.composition.fields import FIRST, SECOND, SIGMA, distance, loop
from energydiff.energies import Denoiser, Sum
from energydiff.energies.base import Sigma
from energydiff.sampling import SequentialMonteCarlo, geometric_sigmas, karras_sigmas


def test_correctors_are_right_as_their_steps_vanish() -> None:
    """And not before: the weights are those of continuous time."""
    energy = COMPOSED["two unit Gaussians"]

    def error(levels: int) -> float:
        x, _ = corrected(energy, geometric_sigmas(levels, 0.05, 10.0), 6000)
        return abs(x.std().item() / math.sqrt(0.5 * (1 + 0.05**2)) - 1)

    assert error(250) < 0.06 < error(12)


def test_the_product_in_the_plane_is_met_by_a_population_of_it() -> None:
    sampler = SequentialMonteCarlo(karras_sigmas(20, SIGMA, 10.0), particles=1500)
    x = sampler(Sum([FIRST, SECOND]), seeds=range(1500), trace=False).samples
    assert abs(distance(x)) < 0.01 < distance(x + 0.2)


class Turning(Denoiser):
    """s = ω (−y, x): the line integral round a triangle is 2ω times its area."""

    shape = (2,)

    def denoise(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
        return x + torch.as_tensor(sigma) ** 2 * 1.5 * torch.stack([-x[:, 1], x[:, 0]], 1)


def test_the_way_counts_where_a_field_turns() -> None:
    corners = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert loop(Turning(), 0.5, *corners)[1] == pytest.approx(2 * 1.5 * 1.0, rel=1e-5)
    assert loop(Sum([FIRST, SECOND]), 0.5, *corners)[1] < 0.01
