"""T3, T5, T9, T13 as counts of attractors against noise."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.testing import assert_close

import energydiff
from energydiff.energies import EmpiricalData
from energydiff.landscape.attractors import attractors
from energydiff.landscape.surface import Surface
from energydiff.memory import LogSumExpMemory

ROOT = Path(__file__).parents[2]


def count(data: Tensor, sigmas: list[float]) -> list[int]:
    return attractors(Surface(EmpiricalData(data)), data, sigmas).count.tolist()


def test_two_points_part_at_their_pitchfork() -> None:
    """σ = μ, whichever way the levels are given."""
    points = torch.tensor([[0.7, 0.0], [-0.7, 0.0]]).double()
    assert count(points, [0.2, 0.69, 0.71, 5.0]) == [1, 1, 2, 2]
    assert count(points, [5.0, 0.71, 0.69, 0.2]) == [1, 1, 2, 2]


def test_from_one_attractor_to_all_points() -> None:
    """T9, and the limit of no noise; homes are the points' own."""
    points = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)).double()
    half = float(torch.pdist(points).amax()) / 2
    least = float(torch.pdist(points).amin())
    found = attractors(Surface(EmpiricalData(points)), points, [half, 0.5 * half, least / 8])
    counts = found.count.tolist()
    assert counts[0] == 1 and counts[-1] == 12 and counts == sorted(counts)
    assert_close(found.alone, torch.tensor([0.0, found.alone[1], 1.0]).double())
    assert_close(found.minima[-1].x[found.home[-1]], points, rtol=0, atol=1e-3)
    assert found.home[0].tolist() == [0] * 12


def test_the_centre_of_a_triangle_is_followed_down_until_it_is_no_minimum() -> None:
    """T5: alone at .75, spurious beside the corners at .72, gone at .70."""
    angles = torch.arange(3).double() * 2 * math.pi / 3
    points = torch.stack([angles.cos(), angles.sin()], 1)
    found = attractors(Surface(EmpiricalData(points)), points, [0.75, 0.72, 0.70])
    assert found.count.tolist() == [1, 4, 3]
    assert found.spurious.tolist() == [0, 1, 0]
    memory = LogSumExpMemory(1 / 0.7**2).store(points)
    assert attractors(Surface(memory), points, [1.0]).count.tolist() == [3]


def test_a_crowded_ring_has_fewer_attractors_than_points() -> None:
    """T13: of 16 points at random .44 keep theirs."""
    angles = torch.from_numpy(np.random.default_rng(0).uniform(0, 2 * math.pi, 16))
    points = torch.stack([angles.cos(), angles.sin()], 1)
    found = attractors(Surface(EmpiricalData(points)), points, [0.1])
    home = found.minima[0].x[found.home[0]]
    kept = (home - points).norm(dim=1) < 0.1 / 5
    assert kept.double().mean().item() == 7 / 16
    assert 7 <= len(found.minima[0]) < 16 and found.home.min() >= 0


@pytest.mark.slow
def test_of_a_trained_energy() -> None:
    """One attractor at the highest noise, more at less."""
    model = energydiff.load(ROOT / "pretrained/digits_energy_unet")
    digits = torch.from_numpy(load_digits().images[:3, None] / 8 - 1)
    found = attractors(Surface(model), digits, [10.0, 0.5])
    counts = found.count.tolist()
    assert counts[0] == 1 and 1 < counts[1] <= 4
    assert bool((found.home >= 0).all()) and bool(found.alone[0] == 0)
