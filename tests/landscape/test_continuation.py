"""Curves of solutions against closed forms, and the two ways to invert a Jacobian."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from energydiff.energies import EmpiricalData
from energydiff.errors import UserError
from energydiff.landscape.bifurcations import branches
from energydiff.landscape.bifurcations.branches import CriticalSystem, start
from energydiff.landscape.bifurcations.continuation import (
    Dense,
    Jacobian,
    Products,
    System,
    correct,
    follow,
    locate,
)
from energydiff.landscape.bifurcations.families import Energies, Homotopy, Noise
from energydiff.landscape.surface import Surface


class Circle(System):
    """x² + p² = 1, which has two folds and no end."""

    def residual(self, z: Tensor) -> Tensor:
        return z.square().sum(1, keepdim=True) - 1

    def jacobian(self, z: Tensor) -> Jacobian:
        return Dense(2 * z[:, None])

    def record(self, z: Tensor, jacobian: Jacobian) -> Tensor:
        return z[:, :1]


def follow_circle(bound: float = 2.0):
    starts = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    ways = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    return follow(Circle(), starts, ways, (-bound, bound), longest=0.2)


def test_a_circle_is_followed_around_its_folds_until_it_closes() -> None:
    for curve in follow_circle():
        assert curve.end == "closed"
        assert_close(curve.z.norm(dim=1), torch.ones(len(curve), dtype=torch.float64))
        angle = torch.atan2(curve.z[:, 1], curve.z[:, 0])
        turned = torch.remainder(angle.diff() + math.pi, 2 * math.pi) - math.pi
        assert bool((turned > 0).all())
        assert_close(float(turned.sum()), 2 * math.pi)


def test_a_curve_ends_exactly_at_a_bound_of_the_parameter() -> None:
    curve = follow_circle(0.6)[0]
    assert curve.end == "bound"
    assert_close(curve.z[-1], torch.tensor([0.8, 0.6], dtype=torch.float64))


def test_a_fold_is_located_where_the_tangent_turns() -> None:
    curve = follow_circle()[0]
    turn = int((curve.tangent[:-1, 1] * curve.tangent[1:, 1] < 0).nonzero()[0])
    z, tangent = locate(Circle(), curve, turn, lambda z, t: float(t[1]))
    assert_close(z, torch.tensor([0.0, 1.0], dtype=torch.float64), atol=1e-9, rtol=0)
    assert_close(tangent.abs(), torch.tensor([1.0, 0.0], dtype=torch.float64), atol=1e-9, rtol=0)


def test_conjugate_gradients_invert_as_the_singular_values_do() -> None:
    matrix = torch.randn(3, 7, 7, dtype=torch.float64)
    matrix, column = matrix + matrix.mT, torch.randn(3, 7, dtype=torch.float64)
    dense = Dense(torch.cat([matrix, column[..., None]], 2))
    products = Products(lambda v: torch.einsum("bij,bj->bi", matrix, v), column)
    r, near = torch.randn(3, 7, dtype=torch.float64), torch.randn(3, 8, dtype=torch.float64)
    fixed = torch.nn.functional.normalize(torch.randn(3, 8, dtype=torch.float64))
    assert_close(dense.solve(r), products.solve(r), atol=1e-7, rtol=1e-7)
    assert_close(dense.solve(r, fixed), products.solve(r, fixed), atol=1e-6, rtol=1e-6)
    assert_close(dense.kernel(near), products.kernel(near), atol=1e-7, rtol=1e-7)
    assert_close(dense.apply(dense.solve(r, fixed)), r)
    assert dense.apply(dense.kernel(near)).abs().max() < 1e-12
    assert ((dense.solve(r, fixed) * fixed).sum(1)).abs().max() < 1e-12


@pytest.mark.parametrize("dense", [1, 256])
def test_wells_of_two_points(monkeypatch: pytest.MonkeyPatch, dense: int) -> None:
    """T3: x = μ tanh(μx/σ²), to the pitchfork at σ = μ, by either inverse."""
    monkeypatch.setattr(branches, "DENSE", dense)
    mu = 1.0
    data = torch.tensor([[mu, 0.0, 0.0], [-mu, 0.0, 0.0]], dtype=torch.float64)
    system = CriticalSystem(Noise(Surface(EmpiricalData(data))))
    z = start(system, data, torch.full((2,), 0.3, dtype=torch.float64))
    up = torch.zeros_like(z)
    up[:, -1] = 1.0
    for curve, way in zip(follow(system, z, up, (-2.0, -0.01), longest=0.1), (1, -1), strict=True):
        x, sigma = system.state(curve.z), system.parameter(curve.z)
        assert_close(x[:, 0], mu * (mu * x[:, 0] / sigma**2).tanh(), atol=1e-8, rtol=0)
        assert curve.end == "bound"
        assert float(way * x[-1, 0]) > 0.1


def test_three_hundred_dimensions() -> None:
    """T3 again, where only products are formed."""
    axis = torch.zeros(300, dtype=torch.float64)
    axis[7] = 1.0
    system = CriticalSystem(Noise(Surface(EmpiricalData(torch.stack([axis, -axis])))), 300**-0.5)
    z = start(system, axis[None], torch.tensor([0.6], dtype=torch.float64))
    up = torch.zeros_like(z)
    up[:, -1] = 1.0
    (curve,) = follow(system, z, up, (-2.0, math.log(0.9)), longest=0.2)
    x, sigma = system.state(curve.z)[:, 7], system.parameter(curve.z)
    assert curve.end == "bound"
    assert_close(x, (x / sigma**2).tanh(), atol=1e-8, rtol=0)
    assert_close(curve.record[:, 1], 1 - (1 - x**2) / sigma**2, atol=1e-7, rtol=0)


@pytest.mark.parametrize("name", ["sigma", "t", "energy"])
def test_the_derivative_by_the_parameter(name: str) -> None:
    first, second = (torch.randn(4, 3, dtype=torch.float64) for _ in range(2))
    surfaces = [Surface(EmpiricalData(data)) for data in (first, second)]
    family = {
        "sigma": Noise(surfaces[0]),
        "t": Homotopy(*surfaces, sigma=0.7),
        "energy": Energies(lambda p: EmpiricalData(p * first), 0.6, 0.7),
    }[name]
    x, p = torch.randn(2, 3, dtype=torch.float64), torch.tensor([0.6, 0.8], dtype=torch.float64)
    ahead, behind = (family.gradient(x, p + way * 1e-5)[1] for way in (1, -1))
    assert_close(family.parameter_gradient(x, p), (ahead - behind) / 2e-5, atol=1e-7, rtol=1e-6)
    v = torch.randn(2, 3, dtype=torch.float64)
    quotient = (family.gradient(x + 1e-5 * v, p)[1] - family.gradient(x - 1e-5 * v, p)[1]) / 2e-5
    assert_close(family.product(x, p)(v), quotient, atol=1e-7, rtol=1e-6)
    assert_close(
        torch.einsum("bij,bj->bi", family.hessian(x, p), v), quotient, atol=1e-7, rtol=1e-6
    )


def test_a_start_that_is_no_critical_point_is_told() -> None:
    system = CriticalSystem(Noise(Surface(EmpiricalData(torch.eye(2, dtype=torch.float64)))))
    with pytest.raises(UserError, match="start 0 is no critical point"):
        start(system, torch.full((1, 2), 1e6), torch.tensor([0.1]))
    z = start(system, torch.tensor([[0.9, 0.1]]), torch.tensor([0.1]))
    assert bool(correct(system, z)[1])


def test_a_homotopy_needs_one_shape() -> None:
    two, three = (Surface(EmpiricalData(torch.eye(n, dtype=torch.float64))) for n in (2, 3))
    with pytest.raises(UserError, match="samples of one shape"):
        Homotopy(two, three, 1.0)
