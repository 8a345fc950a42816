"""T3, T4: two points ±μ, the smallest memory. A pitchfork at σ = μ, then two wells, a barrier."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from energydiff.energies import EmpiricalData, Energy, GaussianMixture
from energydiff.memory import LogSumExpMemory


def two_points(mu: float) -> EmpiricalData:
    return EmpiricalData(torch.tensor([[mu], [-mu]], dtype=torch.float64))


def well(mu: float, sigma: float) -> torch.Tensor:
    """The positive solution of x = μ tanh(μx/σ²), (1, 1)."""
    root = brentq(lambda x: x - mu * math.tanh(mu * x / sigma**2), 1e-6 * mu, mu, xtol=1e-14)
    return torch.tensor([[root]], dtype=torch.float64)


def curvature(mu: float, sigma: float) -> float:
    """∂²E/∂x² half-way between the points."""
    origin = torch.zeros(1, 1, dtype=torch.float64)
    return two_points(mu).hessian_vector_product(origin, sigma, torch.ones_like(origin)).item()


@given(st.floats(0.1, 10), st.floats(0.2, 5))
def test_the_curvature_at_the_centre_is_that_of_a_pitchfork(mu: float, ratio: float) -> None:
    """∂²E/∂x² = 1/σ² − μ²/σ⁴, which changes sign at σ = μ."""
    sigma = ratio * mu
    expected = 1 / sigma**2 - mu**2 / sigma**4
    assert curvature(mu, sigma) == pytest.approx(expected, rel=1e-9, abs=1e-9 / sigma**2)


@pytest.mark.parametrize("mu", [0.3, 1.0, 4.0])
def test_the_pitchfork_is_at_sigma_equal_mu(mu: float) -> None:
    assert brentq(lambda sigma: curvature(mu, sigma), mu / 2, 2 * mu) == pytest.approx(mu)


@given(st.floats(0.2, 0.95), st.floats(0.5, 3))
def test_the_wells_are_fixed_points(ratio: float, mu: float) -> None:
    """x = D(x, σ) at x = μ tanh(μx/σ²)."""
    x = well(mu, ratio * mu)
    assert (two_points(mu).denoise(x, ratio * mu) - x).abs().item() < 1e-10


@pytest.mark.parametrize("start", [-3.0, -0.2, 0.4, 2.0])
def test_above_the_pitchfork_everything_falls_to_the_centre(start: float) -> None:
    energy, x = two_points(1.0), torch.tensor([[start]], dtype=torch.float64)
    for _ in range(200):
        x = energy.denoise(x, 1.3)
    assert x.abs().item() < 1e-9


@pytest.mark.parametrize("start", [-3.0, -0.2, 0.4, 2.0])
def test_below_the_pitchfork_everything_falls_into_the_nearer_well(start: float) -> None:
    energy, x = two_points(1.0), torch.tensor([[start]], dtype=torch.float64)
    for _ in range(200):
        x = energy.denoise(x, 0.8)
    expected = well(1.0, 0.8).item()
    assert x.item() == pytest.approx(expected if start > 0 else -expected)


@pytest.mark.parametrize(("sigma", "height"), [(0.5, 1.307189), (0.8, 0.138820), (0.9, 0.032038)])
def test_the_height_of_the_barrier(sigma: float, height: float) -> None:
    energy = two_points(1.0)
    top = energy(torch.zeros(1, 1, dtype=torch.float64), sigma)
    assert (top - energy(well(1.0, sigma), sigma)).item() == pytest.approx(height, abs=6e-7)


# T4. Unequal weights tilt the wells, until one is gone in a fold


def threshold(ratio: float) -> float:
    """The log-odds h that two wells bear, d = μ/σ = 1/ratio: 2[d√(d²−1) − arccosh d]."""
    d = 1 / ratio
    return 2 * (d * math.sqrt(d**2 - 1) - math.acosh(d))


def wells(energy: Energy, sigma: float) -> int:
    """Minima of a memory of points at ±1: sign changes of ∇E."""
    x = torch.linspace(-1.01, 1.01, 40_001, dtype=torch.float64)[:, None]
    uphill = energy.value_and_grad(x, sigma)[1].flatten() > 0
    return int((uphill[1:] & ~uphill[:-1]).sum())


def weighted(log_odds: float) -> GaussianMixture:
    points = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    return GaussianMixture(points, 0.0, torch.tensor([math.exp(log_odds), 1.0]).double())


@pytest.mark.parametrize(("sigma", "log_odds"), [(0.5, 4.294287), (0.7, 1.123693), (0.9, 0.141981)])
def test_the_log_odds_at_which_the_lighter_point_is_forgotten(
    sigma: float, log_odds: float
) -> None:
    assert threshold(sigma) == pytest.approx(log_odds, abs=6e-7)
    for sign in (-1, 1):
        assert wells(weighted(sign * (log_odds - 2e-6)), sigma) == 2
        assert wells(weighted(sign * (log_odds + 2e-6)), sigma) == 1


@given(st.floats(0.3, 0.95), st.floats(0, 0.99), st.booleans())
def test_two_wells_below_the_threshold_and_one_above(
    sigma: float, share: float, heavier: bool
) -> None:
    bound = threshold(sigma) if heavier else -threshold(sigma)
    assert wells(weighted(share * bound), sigma) == 2
    assert wells(weighted((2 - share) * bound), sigma) == 1


@pytest.mark.parametrize(("copies", "expected"), [(1, 2), (2, 2), (3, 2), (4, 1), (9, 1)])
def test_a_pattern_stored_too_often_hides_the_other(copies: int, expected: int) -> None:
    """A log-sum-exp memory at β = 1/.7², whose log-odds are log copies: log 3 < 1.1237 < log 4."""
    patterns = torch.tensor([[1.0]] * copies + [[-1.0]], dtype=torch.float64)
    assert wells(LogSumExpMemory(1 / 0.7**2).store(patterns), 1.0) == expected
