"""Folds, branch points, cusps and saddle connections where they are known in closed form."""

import importlib.util
import json
import math

import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor
from torch.testing import assert_close

from energydiff.energies import EmpiricalData, GaussianMixture
from energydiff.errors import UserError
from energydiff.landscape.bifurcations.connections import saddle_connections
from energydiff.landscape.bifurcations.cusps import fold_curve
from energydiff.landscape.bifurcations.diagram import Diagram, bifurcation_diagram
from energydiff.landscape.bifurcations.families import Energies, Noise
from energydiff.landscape.critical import distinct
from energydiff.landscape.search import newton
from energydiff.landscape.surface import Surface

TRIANGLE = torch.tensor(
    [[0.95, 0.0], [-0.7, 3**0.5 / 2], [-0.7, -(3**0.5) / 2]], dtype=torch.float64
)


def diagram(data: Tensor, x: Tensor, sigma: float, bounds=(0.4, 1.5)) -> Diagram:
    return bifurcation_diagram(Noise(Surface(EmpiricalData(data))), x, sigma, bounds)


def points(data: Tensor, sigma: float) -> Tensor:
    """Critical points of all indices that some searches find."""
    surface = Surface(EmpiricalData(data))
    starts = torch.randn(30, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = [newton(surface, starts, sigma, index) for index in (0, 1, 2)]
    x = torch.cat([f.x[f.converged] for f in found])
    return x[distinct(x, 1e-4)]


def simplex(dim: int) -> Tensor:
    """dim + 1 points at distance 1 from 0 and equal distances from each other."""
    centred = torch.eye(dim + 1, dtype=torch.float64) - 1 / (dim + 1)
    rows = centred @ torch.linalg.svd(centred)[2][:dim].T
    return rows / rows.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("mu", [0.5, 1.0])
def test_pitchfork_of_two_points(mu: float) -> None:
    """T3: from the centre alone, the pitchfork at σ = μ and both wells."""
    data = torch.tensor([[mu], [-mu]], dtype=torch.float64)
    found = diagram(data, torch.zeros(1, 1), 1.5, (0.2, 2.0))
    (event,) = found.events
    assert (event.kind, event.branches, len(found.branches)) == ("pitchfork", (0, 1), 2)
    assert_close(event.parameter, mu, atol=1e-7, rtol=0)
    assert abs(event.quadratic) < 1e-6
    trunk, wells = found.branches
    assert bool((trunk.index == (trunk.parameter < mu)).all())
    x, sigma = wells.x[:, 0], wells.parameter
    assert_close(x, mu * (mu * x / sigma**2).tanh(), atol=1e-8, rtol=0)
    assert x.min() < 0 < x.max()
    assert bool((wells.index == 0).all())


def odds(h: float) -> GaussianMixture:
    """Points ±1 with log-odds h."""
    weights = torch.tensor([h, 0.0], dtype=torch.float64).softmax(0)
    return GaussianMixture(torch.tensor([[1.0], [-1.0]], dtype=torch.float64), 0.0, weights)


def limit(sigma: Tensor) -> Tensor:
    """T4: the log-odds up to which there are two wells."""
    d = 1 / sigma
    return 2 * (d * (d**2 - 1).clamp(min=0).sqrt() - torch.acosh(d.clamp(min=1)))


@pytest.mark.parametrize(("h", "sigma"), [(4.294287, 0.5), (1.123693, 0.7), (0.141981, 0.9)])
def test_fold_of_two_points_of_unequal_weight(h: float, sigma: float) -> None:
    start = torch.tensor([[-0.999]], dtype=torch.float64)
    found = bifurcation_diagram(Noise(Surface(odds(h))), start, 0.2, (0.15, 1.5))
    (event,) = found.events
    assert event.kind == "fold"
    assert_close(event.parameter, sigma, atol=1e-6, rtol=0)
    # The same fold as the weights change at this σ.
    family = Energies(odds, h - 0.1, sigma, "log-odds")
    (other,) = bifurcation_diagram(family, -start.abs(), h - 0.1, (h - 0.2, h + 0.2)).events
    assert_close(other.parameter, h, atol=1e-6, rtol=0)


def test_cusp_of_two_points() -> None:
    """T4: the folds of all log-odds, and the cusp at σ = μ, h = 0 that joins both sides."""
    x = torch.tensor([-(0.51**0.5)])
    curve = fold_curve(odds, x, 0.7, 1.123693, (-1.2, 1.5))
    assert_close(curve.parameter.abs(), limit(curve.sigma), atol=1e-7, rtol=0)
    assert curve.ends == ("bound", "bound")
    (cusp,) = curve.cusps
    assert_close((cusp.sigma, cusp.parameter), (1.0, 0.0), atol=1e-5, rtol=0)
    assert_close(curve.x.square()[:, 0], 1 - curve.sigma**2, atol=1e-7, rtol=0)


@pytest.mark.parametrize(
    ("dim", "fold"), [(2, 0.739135), pytest.param(3, 0.643615, marks=pytest.mark.slow)]
)
def test_simplex(dim: int, fold: float) -> None:
    """T5: all wells and saddles from the centre, through the one branch point at σ = 1/√D."""
    found = diagram(simplex(dim), torch.zeros(1, dim), 1.5, (0.5, 1.6))
    (centre,) = (e for e in found.events if len(e.modes) > 1)
    assert_close(centre.parameter, dim**-0.5, atol=1e-8, rtol=0)
    assert (centre.kind, len(centre.modes)) == ("branch point", dim)
    folds = found.of_kind("fold")
    assert len(folds) == dim + 1
    for event in folds:
        assert_close(event.parameter, fold, atol=1e-6, rtol=0)
    # One line of branches to each vertex, and at D = 3 one to each pair of edges.
    assert len(centre.branches) == 1 + {2: 3, 3: 7}[dim]


def test_simplex_in_ten_dimensions() -> None:
    data = simplex(10)
    (fold,) = diagram(data, data[:1], 0.4, (0.35, 0.6)).of_kind("fold")
    assert_close(fold.parameter, 0.484307, atol=1e-6, rtol=0)


def test_symmetric_triangle() -> None:
    """T8 at δ = 0, with the saddle-saddle connection that symmetry holds."""
    surface = Surface(EmpiricalData(TRIANGLE))
    found = diagram(TRIANGLE, points(TRIANGLE, 0.7), 0.7, (0.6, 0.9))
    (fold,) = found.of_kind("fold")
    low, high = found.of_kind("pitchfork")
    assert_close(fold.parameter, 0.77324, atol=1e-5, rtol=0)
    assert_close((low.parameter, high.parameter), (0.65773, 0.78180), atol=1e-5, rtol=0)
    assert len(found.events) == 3
    (connection,) = saddle_connections(surface, found, levels=6)
    assert connection.kind == "persistent"
    assert_close(connection.sigma, (0.65773, 0.77324), atol=1e-5, rtol=0)
    assert connection.target in high.branches and connection.saddle in fold.branches


def test_rhombus_folds_into_itself_by_four_pitchforks() -> None:
    """Four centroids: the centre's modes change sign where σ² is an eigenvalue of the posterior
    covariance, and the branches along the long diagonal give off one more pair each."""
    data = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.9], [0.0, -0.9]], dtype=torch.float64)
    found = diagram(data, torch.zeros(1, 2), 1.5, (0.5, 1.6))
    sigmas = [event.parameter for event in found.of_kind("pitchfork")]
    assert len(sigmas) == len(found.events) == 4

    def centre(sigma: float, axis: int) -> float:
        weights = torch.softmax(-data.square().sum(1) / (2 * sigma**2), 0)
        return float(1 - weights @ data[:, axis].square() / sigma**2)

    exact = sorted(brentq(lambda s, a=axis: centre(s, a), 0.6, 0.8) for axis in (0, 1))
    assert_close(sigmas[2:], exact, atol=1e-8, rtol=0)
    # The others are one event at x and at −x.
    assert_close(sigmas[0], sigmas[1], atol=1e-8, rtol=0)
    assert len(found.branches) == 5


def test_one_minimum_above_half_the_diameter() -> None:
    """T9: no event and one branch above it, whatever the data."""
    data = torch.randn(6, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    half = float(torch.cdist(data, data).max()) / 2
    found = diagram(data, points(data, half), half, (half, 4 * half))
    assert len(found.branches) == 1 and not found.events
    assert bool((found.branches[0].index == 0).all())


@pytest.mark.slow
def test_a_crossing_of_unstable_and_stable_manifolds() -> None:
    """T8 leaning two ways at once, by place and by weight, so that they cancel at one σ: by fixed
    steps of gradient descent, within .001 of .72."""
    data = TRIANGLE.clone()
    data[0, 1] = 0.02
    energy = GaussianMixture(data, 0.0, torch.tensor([1.0, 0.9796, 1.0], dtype=torch.float64))
    surface = Surface(energy)
    found = bifurcation_diagram(Noise(surface), points(data, 0.72), 0.72, (0.69, 0.76))
    (connection,) = saddle_connections(surface, found, levels=6)
    low, high = connection.sigma
    assert connection.kind == "crossing"
    assert 0.719 < low < high < 0.721 and high - low <= 1e-4


def test_a_diagram_as_plain_data_and_what_it_refuses() -> None:
    data = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    found = diagram(data, torch.zeros(1, 1), 1.2, (0.8, 1.3))
    plain = json.loads(json.dumps(found.plain(states=False)))
    assert plain["events"][0]["kind"] == "pitchfork"
    assert "x" not in plain["branches"][0] and "x" in found.plain()["branches"][0]
    assert_close(found.branches[0].at(0.9), torch.zeros(1, 1, dtype=torch.float64))
    assert len(found.branches[1].at(0.9)) == 2
    for bounds in [(2.0, 1.0), (0.0, 1.0)]:
        with pytest.raises(UserError, match="bounds of sigma must be increasing and positive"):
            diagram(data, torch.zeros(1, 1), 1.2, bounds)


@pytest.mark.skipif(not importlib.util.find_spec("bice"), reason="bice is not installed")
def test_fold_of_the_triangle_as_another_package_finds_it() -> None:
    """T8 at δ = 0 by bice, whose pseudo-arclength continuation shares nothing with ours."""
    import numpy as np
    from bice import Equation, Problem

    points = TRIANGLE.numpy()

    class Residual(Equation):
        def __init__(self) -> None:
            super().__init__(shape=(2,))
            self.u, self.sigma = np.array([0.81013, 0.0]), 0.7

        def rhs(self, u):
            logits = -((u - points) ** 2).sum(1) / (2 * self.sigma**2)
            weights = np.exp(logits - logits.max())
            return weights @ points / weights.sum() - u

    problem = Problem()
    equation = Residual()
    problem.add_equation(equation)
    problem.continuation_parameter = (equation, "sigma")
    problem.settings.neigs = 0
    problem.continuation_stepper.ds = problem.continuation_stepper.ds_max = 2e-3
    problem.continuation_stepper.fd_epsilon = 1e-6
    seen = []
    for _ in range(400):
        problem.continuation_step()
        seen.append((equation.sigma, float(equation.u[0])))
        if equation.sigma < max(s for s, _ in seen) - 2e-4:
            break
    sigma, x = np.array(sorted(seen)[-5:]).T
    top = np.polyfit(x - x.mean(), sigma, 2)  # a fold is a parabola
    highest = top[2] - top[1] ** 2 / (4 * top[0])
    found = diagram(TRIANGLE, torch.tensor([[0.81013, 0.0]]), 0.7, (0.65, 0.9))
    assert_close(found.of_kind("fold")[0].parameter, float(highest), atol=1e-6, rtol=0)
    assert math.isclose(float(highest), 0.77324, abs_tol=1e-5)
