"""Shares of wells against integrals of exp(−V/T), and these against Laplace's weights as T → 0."""

import math

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor
from torch.testing import assert_close

from energydiff.energies import GaussianMixture
from energydiff.errors import UserError
from energydiff.landscape.basins import basin_of
from energydiff.landscape.exploration import minima
from energydiff.landscape.occupation import laplace_weights, occupation
from energydiff.landscape.search import newton
from energydiff.landscape.surface import Surface

SIGMA = 0.5


def double_well() -> GaussianMixture:
    """The right well is the deeper and the narrower."""
    means, std = torch.tensor([[1.0], [-1.0]]).double(), torch.tensor([0.2, 0.45]).double()
    return GaussianMixture(means, std, torch.tensor([0.5, 0.5]))


def wells(model: GaussianMixture) -> Tensor:
    surface = Surface(model)
    found = minima(surface, model.means, SIGMA).x
    return found[found[:, 0].argsort(descending=True)]


def log_odds(model: GaussianMixture, temperature: float) -> float:
    """log of ∫ exp(−V/T) right of the barrier over that left of it."""
    surface, low = Surface(model), wells(model)
    barrier = float(newton(surface, low.mean(0, keepdim=True), SIGMA, 1).x)
    depth = surface.value(low, SIGMA).tolist()

    def density(x: float, base: float) -> float:
        value = surface.value(torch.tensor([[x]]).double(), SIGMA).item()
        return math.exp((base - value) / temperature)

    right = quad(density, barrier, 4, (depth[0],), points=[float(low[0])], limit=200)[0]
    left = quad(density, -4, barrier, (depth[1],), points=[float(low[1])], limit=200)[0]
    return math.log(right / left) + (depth[1] - depth[0]) / temperature


def test_laplace_weights_are_the_limit_of_the_integrals() -> None:
    """The error of their odds falls in proportion to T."""
    model, levels = double_well(), [0.001, 0.0005, 0.00025]
    right, left = laplace_weights(Surface(model), wells(model), SIGMA, levels).log().T
    errors = [log_odds(model, t) - o for t, o in zip(levels, (right - left).tolist(), strict=True)]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.2)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.1)
    assert abs(errors[2]) < 0.05


def test_the_weights_of_two_known_wells() -> None:
    """One depth, curvatures 4 to 1: the wide one has twice the weight at every temperature."""

    class Wells(GaussianMixture):
        """V with minima 0 at ±1 of curvature 4 and 1, but for the other's tail."""

        def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
            right, left = 2 * (x[:, 0] - 3) ** 2, 0.5 * (x[:, 0] + 3) ** 2
            value = torch.minimum(right, left)
            return value / sigma**2 + 0.5 * torch.log(2 * math.pi * sigma**2)

    surface = Surface(Wells(torch.zeros(1, 1).double()))
    low = torch.tensor([[3.0], [-3.0]]).double()
    weights = laplace_weights(surface, low, SIGMA, [1.0, 0.1])
    assert_close(weights, torch.tensor([[1 / 3, 2 / 3]] * 2).double())


def test_the_shares_of_a_double_well() -> None:
    """At every temperature, the barrier ten times the lowest among them."""
    model = double_well()
    found = occupation(model, wells(model), SIGMA, [0.02, 0.2, 0.05], burn_in=60)
    assert found.temperature.tolist() == [0.2, 0.05, 0.02]
    assert_close(found.share.sum(1), torch.ones(3).double(), rtol=0, atol=1e-3)
    shares = torch.tensor([log_odds(model, t) for t in found.temperature.tolist()]).sigmoid()
    assert bool(((found.share[:, 0] - shares).abs() < 4 * found.error[:, 0]).all())
    assert float(found.error.max()) < 0.03 and float(found.exchanged.min()) > 0.2


def test_of_a_mixture_in_the_plane() -> None:
    """Three wells, against the density on a grid."""
    means = torch.tensor([[1.0, 0.0], [-0.5, 0.9], [-0.5, -0.9]]).double()
    surface = Surface(GaussianMixture(means, torch.tensor([0.1, 0.2, 0.3]).double()))
    low = newton(surface, means, 0.45).x
    found = occupation(surface.energy, low, 0.45, [0.12, 0.04], chains=64, burn_in=40, records=30)
    ticks = torch.linspace(-2.5, 2.5, 61).double()
    grid = torch.cartesian_prod(ticks, ticks)
    owner = basin_of(surface, grid, 0.45, low)
    for i, level in enumerate(found.temperature.tolist()):
        weight = (-surface.value(grid, 0.45) / level).softmax(0)
        shares = torch.stack([weight[owner == k].sum() for k in range(3)])
        assert bool(((found.share[i] - shares).abs() < 4 * found.error[i] + 5e-3).all())
    assert float((found.laplace[-1] - shares).abs().max()) < 0.1


def test_nonsense_is_refused() -> None:
    model = double_well()
    with pytest.raises(UserError, match="occupation needs"):
        occupation(model, wells(model), SIGMA, [0.0], step_size=0.1)
    with pytest.raises(UserError, match="need minima; an eigenvalue is -"):
        laplace_weights(Surface(model), torch.zeros(1, 1).double(), SIGMA, [1.0])
