"""T10: predicted speciation and collapse against what is measured of mixtures and samples."""

import math

import pytest
import torch
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import norm
from torch import Tensor

from energydiff.energies import GaussianMixture
from energydiff.errors import UserError
from energydiff.landscape.transitions import (
    SPECIATION,
    cloning,
    collapse_noise,
    condensation,
    crossing,
    speciation_noise,
    speciation_time,
)


def gaussian(count: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)).double()


# Collapse


@pytest.mark.parametrize(("dim", "count", "sigma"), [(256, 20_000, 3.526), (32, 100, 1.732)])
def test_the_noise_of_collapse(dim: int, count: int, sigma: float) -> None:
    assert collapse_noise(1.0, dim, count) == pytest.approx(sigma, abs=6e-4)
    assert collapse_noise(0.3, dim, count) == pytest.approx(0.3 * sigma, abs=6e-4)


@pytest.mark.parametrize(("dim", "count", "slack"), [(32, 100, 0.15), (256, 4000, 0.1)])
def test_a_sample_condenses_there(dim: int, count: int, slack: float) -> None:
    """Of finite size a little above: the fluctuations of log w are of order 1."""
    predicted = collapse_noise(1.0, dim, count)
    levels = predicted * torch.linspace(0.5, 1.6, 12)
    found = condensation(gaussian(count, dim), levels)
    assert predicted * 0.97 < found.collapse < predicted * (1 + slack)
    assert bool((found.own.mean(1).diff() < 0).all())
    assert bool((found.participation >= 1 - 1e-9).all())
    assert found.participation[0].median() < 1.01 and found.participation[-1].median() > 3


def test_two_points_share_the_posterior_as_they_must() -> None:
    """w of the point's own is the logistic function of its log-odds: 2μ²/σ² + 2με/σ."""
    points = torch.tensor([[1.0], [-1.0]]).double()
    found = condensation(points, [0.5, 1.0, 3.0], samples=4000)
    for i, sigma in enumerate(found.sigma.tolist()):
        exact = quad(lambda e, s=sigma: expit(2 / s**2 + 2 * e / s) * norm.pdf(e), -8, 8)[0]
        assert float(found.own[i].mean()) == pytest.approx(exact, abs=0.02)
    assert torch.allclose(1 / found.participation, found.own**2 + (1 - found.own) ** 2)


# Speciation


def test_the_share_at_the_pitchfork() -> None:
    share = quad(lambda z: (expit(2 + 2 * z) ** 2 + expit(-2 - 2 * z) ** 2) * norm.pdf(z), -9, 9)
    assert pytest.approx(share[0], abs=1e-6) == SPECIATION


def test_the_noise_of_speciation() -> None:
    """Λ = ‖m‖² + s²."""
    m, s = 6.0, 0.5
    for shape in ((40,), (2, 3)):
        data = s * torch.randn(2000, *shape, generator=torch.Generator().manual_seed(0)).double()
        data[::2].view(1000, -1)[:, 0] += m
        data[1::2].view(1000, -1)[:, 0] -= m
        assert speciation_noise(data) ** 2 == pytest.approx(m**2 + s**2, rel=0.02)
        assert speciation_time(data) == pytest.approx(0.5 * math.log(m**2 + s**2), abs=0.02)
    assert speciation_noise(data[:4]) > 0  # fewer points than dimensions


@pytest.mark.parametrize("s", [0.3, 1.0])
def test_clones_part_at_the_pitchfork_of_two_gaussians(s: float) -> None:
    """The share is E[p² + (1 − p)²] at every σ, p the posterior of a class."""
    m, dim, count = 5.0, 4, 2000
    means = torch.zeros(2, dim, dtype=torch.float64)
    means[:, 0] = torch.tensor([m, -m])
    data = means.repeat(count // 2, 1) + s * gaussian(count, dim)
    pitchfork = math.sqrt(m**2 - s**2)
    levels = pitchfork * torch.tensor([0.5, 0.8, 1.0, 1.25, 2.0]).double()
    model = GaussianMixture(means, s)
    found = cloning(model, data, levels, lambda x: x[:, 0] > 0, sigma_min=0.02, steps=60)
    for i, sigma in enumerate(levels.tolist()):
        variance = s**2 + sigma**2

        def same(z: float, variance: float = variance) -> float:
            p = expit(2 * m * (m + math.sqrt(variance) * z) / variance)
            return (p**2 + (1 - p) ** 2) * norm.pdf(z)

        exact, error = quad(same, -9, 9)[0], math.sqrt(0.25 / count)
        assert float(found.curve[0, i]) == pytest.approx(exact, abs=3.5 * error)
    assert found.speciation == pytest.approx(pitchfork, rel=0.1)
    assert bool((found.curve[1] < found.curve[0]).all() and (found.curve[0] < found.curve[2]).all())


def test_a_crossing() -> None:
    sigma = torch.tensor([1.0, 2.0, 4.0]).double()
    assert crossing(sigma, torch.tensor([1.0, 0.75, 0.25]), 0.5) == pytest.approx(2 * 2**0.5)
    assert math.isnan(crossing(sigma, torch.tensor([1.0, 0.75, 0.6]), 0.5))
    assert math.isnan(crossing(sigma, torch.tensor([0.4, 0.3, 0.2]), 0.5))


def test_nonsense_is_refused() -> None:
    with pytest.raises(UserError, match="count > 1"):
        collapse_noise(1.0, 3, 1)
    with pytest.raises(UserError, match="must be positive"):
        condensation(gaussian(3, 2), [0.0, 1.0])
    with pytest.raises(UserError, match="no noise range"):
        cloning(GaussianMixture(gaussian(2, 2)), gaussian(3, 2), [1.0], lambda x: x[:, 0] > 0)
