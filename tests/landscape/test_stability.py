"""Margins against the covariance of the posterior, connections of T8, and Hopfield's criteria."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from energydiff.energies import EmpiricalData, GaussianMixture
from energydiff.errors import UserError
from energydiff.landscape.critical import CriticalPoints, critical_points
from energydiff.landscape.exploration import explore, minima
from energydiff.landscape.morse import morse_graph
from energydiff.landscape.stability import (
    Stability,
    attention_hyperbolicity,
    attention_spectrum,
    hopfield_hessian,
    hopfield_hyperbolicity,
    structural_stability,
)
from energydiff.landscape.surface import Surface
from energydiff.memory import ContinuousHopfield, LogSumExpMemory


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def three(delta: float) -> Tensor:
    """T8."""
    height = math.sqrt(3) / 2
    return torch.tensor([[0.95, delta], [-0.7, height], [-0.7, -height]]).double()


def judged(points: Tensor, sigma: float) -> Stability:
    surface = Surface(EmpiricalData(points))
    low = minima(surface, points, sigma)
    starts = 1.5 * torch.rand(200, 2, generator=torch.Generator().manual_seed(0)).double() - 0.75
    found = critical_points(surface, starts, sigma, None, "Searching")
    graph = morse_graph(surface, low, found.of_index(1), sigma)
    return structural_stability(graph, found.of_index(2))


# The verdict at one σ


@pytest.mark.parametrize("sigma", [0.3, 0.5])
def test_the_margin_is_that_of_the_posterior_covariance(sigma: float) -> None:
    """min |1 − λ_i(Cov_w)/σ²| over the critical points."""
    points = normal(0, 6, 3)
    found = explore(Surface(EmpiricalData(points)), points, sigma)
    verdict = structural_stability(found.graph, found.others)
    x = found.points.x
    w = (-torch.cdist(x, points).square() / (2 * sigma**2)).softmax(1)
    away = points - (w @ points)[:, None]
    covariance = torch.einsum("nk,nki,nkj->nij", w, away, away)
    margins = (1 - torch.linalg.eigvalsh(covariance) / sigma**2).abs().amin(1)
    assert_close(found.points.margin, margins, rtol=1e-8, atol=1e-10)
    assert verdict.margin == pytest.approx(float(margins.min()), rel=1e-8)
    assert verdict.weakest == int(margins.argmin())
    assert verdict.morse_smale and verdict.margin > 1e-3


@pytest.mark.parametrize(("delta", "stable"), [(0.0, False), (0.02, True)])
def test_a_saddle_that_leads_to_a_saddle(delta: float, stable: bool) -> None:
    """T8: at δ = 0 for every σ in (.65773, .77324); a shift of the lone point breaks it."""
    verdict = judged(three(delta), 0.70)
    assert verdict.morse_smale == stable and verdict.complete
    assert len(verdict.connections) == (0 if stable else 1)
    assert not verdict.degenerate and verdict.margin > 1e-3
    assert ("saddle–saddle connections: 1" in str(verdict)) != stable


def test_beyond_the_connection_the_mirrored_set_is_stable() -> None:
    assert judged(three(0.0), 0.65).morse_smale


def test_a_pitchfork_is_degenerate() -> None:
    points = torch.tensor([[1.0], [-1.0]]).double()
    surface = Surface(EmpiricalData(points))
    centre = CriticalPoints.join([critical_points(surface, 0 * points[:1], 1.0, 0, "")])
    graph = morse_graph(surface, centre, centre[:0], 1.0)
    verdict = structural_stability(graph)
    assert not verdict.morse_smale and verdict.degenerate == [0] and verdict.margin < 1e-12
    assert str(verdict).startswith("sigma = 1: not Morse–Smale; the least |eigenvalue|")
    with pytest.raises(UserError, match="no critical points"):
        structural_stability(morse_graph(surface, centre[:0], centre[:0], 1.0))


def test_a_missing_point_is_told() -> None:
    points = torch.tensor([[1.0], [-1.0]]).double()
    surface = Surface(EmpiricalData(points))
    low = minima(surface, points, 0.5)
    verdict = structural_stability(morse_graph(surface, low, low[:0], 0.5))
    assert not verdict.complete and "sum of (−1)^index is 2" in str(verdict)


# Modern Hopfield networks and attention


def test_the_spectrum_of_attention_is_that_of_its_jacobian() -> None:
    for count, dim in ((4, 7), (9, 3)):
        keys, states, beta = normal(1, count, dim), normal(2, 5, dim), 1.7
        found = attention_spectrum(keys, beta, states)
        for x, values in zip(states, found, strict=True):
            jacobian = torch.autograd.functional.jacobian(
                lambda x, k=keys, b=beta: (b * k @ x).softmax(0) @ k, x
            )
            exact = torch.linalg.eigvalsh(0.5 * (jacobian + jacobian.T)).flip(0)
            assert_close(values, exact, rtol=1e-9, atol=1e-11)


def test_attention_is_hyperbolic_as_the_memory_and_its_data_are() -> None:
    """1 − spec(βX(diag p − ppᵀ)Xᵀ) is the spectrum of H's Hessian."""
    keys, beta = normal(3, 8, 5), 2.0
    found = attention_hyperbolicity(keys, beta, keys)
    surface = Surface(LogSumExpMemory(beta).store(keys))
    assert float(surface.gradient(found.x, 1.0)[1].norm(dim=1).max()) < 1e-9
    exact = torch.linalg.eigvalsh(surface.hessian(found.x, 1.0))
    assert_close(found.eigenvalues, exact, rtol=1e-9, atol=1e-10)
    assert bool(found.hyperbolic.all()) and bool((found.index == 0).all())


@pytest.mark.parametrize("ratio", [0.8, 1.0, 1.3])
def test_attention_on_two_opposite_keys(ratio: float) -> None:
    """T3: at the origin the Jacobian is βμ²: a pitchfork at β = 1/μ², no matter the dimension."""
    keys = torch.zeros(2, 4, dtype=torch.float64)
    keys[:, 1] = torch.tensor([0.5, -0.5])
    beta = ratio / 0.25
    found = attention_hyperbolicity(keys, beta, torch.zeros(1, 4).double())
    assert float(found.margin) == pytest.approx(abs(1 - ratio), abs=1e-12)
    assert bool(found.hyperbolic) == (ratio != 1.0)
    assert int(found.index) == (1 if ratio > 1 else 0)


# Classic Hopfield networks


@pytest.mark.parametrize("rule", ["hebb", "pseudo-inverse"])
def test_the_hessian_of_a_classic_network(rule) -> None:
    memory = ContinuousHopfield(3.0, rule).store(normal(4, 3, 6).sign())
    x = (0.9 * normal(5, 4, 6)).tanh()
    surface = Surface(memory)
    assert_close(hopfield_hessian(memory.weights, x, 3.0), surface.hessian(x, 1.0))


def test_what_a_classic_network_recalls_is_hyperbolic() -> None:
    memory = ContinuousHopfield(4.0, "pseudo-inverse").store(normal(6, 3, 8).sign())
    x = memory.retrieve(memory.patterns, steps=400, tolerance=1e-14).samples
    found = hopfield_hyperbolicity(memory.weights, x, 4.0)
    assert bool(found.hyperbolic.all()) and bool((found.index == 0).all())
    well = float(x[0].abs().mean())  # W keeps patterns: x = tanh(R x), the same in every neuron
    assert_close(found.margin, torch.full((3,), 1 / (4 * (1 - well**2)) - 1).double())
    origin = hopfield_hyperbolicity(memory.weights, torch.zeros(1, 8), 4.0)
    assert int(origin.index) == 3 and float(origin.margin) == pytest.approx(0.25)


def test_without_leak_a_singular_network_is_unstable() -> None:
    """Prop. 26: three patterns on eight neurons leave five directions free."""
    memory = ContinuousHopfield(4.0).store(normal(6, 3, 8).sign())
    x = 0.5 * normal(7, 2, 8).tanh()
    singular = hopfield_hyperbolicity(memory.weights, x, math.inf)
    assert not bool(singular.hyperbolic.any())
    full = hopfield_hyperbolicity(memory.weights + 0.1 * torch.eye(8), x, math.inf)
    assert bool(full.hyperbolic.all()) and float(full.margin.min()) == pytest.approx(0.1)
    with pytest.raises(UserError, match="between -1 and 1"):
        hopfield_hessian(memory.weights, torch.ones(1, 8), 4.0)


def test_a_mixture_is_judged_too() -> None:
    means = torch.tensor([[1.0, 0.0], [-1.0, 0.3], [0.1, 1.4]]).double()
    found = explore(Surface(GaussianMixture(means, 0.2)), means, 0.3)
    assert structural_stability(found.graph, found.others).morse_smale
