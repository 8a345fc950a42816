"""What becomes of critical points from one model to the next, where it is known."""

import json

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from energydiff.energies import GaussianMixture
from energydiff.errors import UserError
from energydiff.landscape.bifurcations.learning import learning_landscape
from energydiff.landscape.critical import CriticalPoints, examine
from energydiff.landscape.surface import Surface

SIGMA = 0.7


def weighted(h: float) -> Surface:
    """Points ±1 with log-odds h: two wells and a saddle up to |h| = 1.123693 at σ = .7 (T4)."""
    weights = torch.tensor([h, 0.0], dtype=torch.float64).softmax(0)
    means = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    return Surface(GaussianMixture(means, 0.0, weights))


def critical(surface: Surface) -> CriticalPoints:
    """All critical points, by the sign changes of ∇V on a line."""
    x = torch.linspace(-2, 2, 4001, dtype=torch.float64)[:, None]
    slope = surface.gradient(x, SIGMA)[1][:, 0]
    zeros = ((slope[:-1] * slope[1:]) <= 0).nonzero()[:, 0]
    states: Tensor = x[zeros]
    for _ in range(20):
        states = states - surface.gradient(states, SIGMA)[1] / surface.hessian(states, SIGMA)[:, 0]
    return examine(surface, states, SIGMA)


def test_points_persist_vanish_at_a_fold_and_come_back() -> None:
    surfaces = [weighted(h) for h in (0.3, 0.6, 1.5, 0.6)]
    points = [critical(surface) for surface in surfaces]
    assert [len(p) for p in points] == [3, 3, 1, 3]
    kept, lost, back = learning_landscape(surfaces, points, SIGMA, reach=0.3)
    assert kept.partner.tolist() == [0, 1, 2] and not len(kept.new)
    assert bool((kept.index[:, 0] == kept.index[:, 1]).all())
    assert lost.partner.tolist() == [-1, -1, 0]
    assert back.partner.tolist() == [2] and back.new.tolist() == [0, 1]
    # V₀ and V₁ differ in the prior's odds alone, so on the way the well and the saddle meet.
    assert bool((lost.fold[:2] > 0).all() and (lost.fold[:2] < 1).all())
    assert_close(lost.fold[0], lost.fold[1], atol=5e-2, rtol=0)
    assert json.loads(json.dumps(lost.plain()))["moved"][0] is None


def test_a_point_that_moves_far_is_followed_by_homotopy() -> None:
    means = torch.tensor([[0.0, 0.0]], dtype=torch.float64)
    surfaces = [Surface(GaussianMixture(means + shift, 0.5)) for shift in (0.0, 3.0)]
    points = [
        examine(s, means + shift, SIGMA) for s, shift in zip(surfaces, (0.0, 3.0), strict=True)
    ]
    (step,) = learning_landscape(surfaces, points, SIGMA, reach=0.1)
    assert step.partner.tolist() == [0]
    assert_close(step.moved, torch.tensor([3.0 * 2**0.5], dtype=torch.float64))


def test_it_needs_two_models() -> None:
    surface = weighted(0.3)
    with pytest.raises(UserError, match="two models or more"):
        learning_landscape([surface], [critical(surface)], SIGMA, 0.3)
