"""Critical points of energies whose critical points are known."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from energydiff import UserError
from energydiff.denoisers import build_denoiser
from energydiff.energies import EmpiricalData, Energy, GaussianMixture
from energydiff.energies.noise_range import NoiseRange
from energydiff.landscape.critical import (
    CriticalPoints,
    critical_points,
    distinct,
    examine,
    nearest,
)
from energydiff.landscape.search import descend, newton
from energydiff.landscape.surface import Surface
from energydiff.potentials import MLP


def two_points() -> Surface:
    return Surface(EmpiricalData(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).double()))


def simplex(dim: int) -> Tensor:
    """dim + 1 points at distance 1 from 0, all as far from one another."""
    points = torch.eye(dim + 1).double() - 1 / (dim + 1)
    points = points @ torch.linalg.svd(points)[2][:dim].T
    return points / points.norm(dim=1, keepdim=True)


def trained_like(dim: int = 3, seed: int = 0) -> Energy:
    """A network that no formula knows."""
    torch.manual_seed(seed)
    network = MLP((dim,), width=32, depth=2)
    model = build_denoiser(network, 0.5, "inner_product").double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.require_energy()


@pytest.mark.parametrize(
    "model", [GaussianMixture(torch.randn(3, 3).double(), 0.3), trained_like()]
)
def test_derivatives_are_difference_quotients(model: Energy) -> None:
    surface, sigma, step = Surface(model), 0.4, 1e-5
    x, v = torch.randn(2, 5, 3).double()
    value, slope = surface.gradient(x, sigma)
    ahead, behind = (surface.gradient(x + s * v, sigma) for s in (step, -step))
    assert_close((slope * v).sum(1), (ahead[0] - behind[0]) / (2 * step), rtol=1e-6, atol=1e-8)
    hessian = surface.hessian(x, sigma)
    quotient = (ahead[1] - behind[1]) / (2 * step)
    assert_close(torch.einsum("bij,bj->bi", hessian, v), quotient, rtol=1e-6, atol=1e-7)
    assert_close(surface.product(x, sigma)(v), quotient, rtol=1e-6, atol=1e-7)
    later, sooner = (surface.gradient(x, sigma + s)[1] for s in (step, -step))
    noise = (later - sooner) / (2 * step)
    assert_close(surface.noise_gradient(x, sigma), noise, rtol=1e-6, atol=1e-7)
    assert_close(value, model.free_energy(x, sigma))


def test_states_may_have_noise_of_their_own() -> None:
    surface, sigma = two_points(), torch.tensor([0.5, 0.9]).double()
    x = torch.tensor([[0.3, 0.1], [-0.2, 0.4]]).double()
    one = torch.cat([surface.gradient(x[i : i + 1], float(sigma[i]))[1] for i in range(2)])
    assert_close(surface.gradient(x, sigma)[1], one)


@pytest.mark.parametrize("sigma", [0.3, 0.5, 0.8, 0.95])
def test_two_points_have_two_wells_and_a_saddle(sigma: float) -> None:
    """Wells solve x = tanh(x/σ²), the saddle's curvature is 1 − 1/σ²; barriers of T3."""
    surface = two_points()
    start = torch.tensor([[0.8, 0.2], [-0.7, 0.1], [0.05, 0.3]]).double()
    wells = critical_points(surface, start[:2], sigma, 0, "")
    assert wells.index.tolist() == [0, 0]
    well = wells.x[:, 0].abs()
    assert_close(well, (well / sigma**2).tanh(), rtol=0, atol=1e-8)
    saddle = critical_points(surface, start[2:], sigma, 1, "")
    assert saddle.index.tolist() == [1]
    assert_close(saddle.x, torch.zeros(1, 2).double(), rtol=0, atol=1e-8)
    assert_close(saddle.eigenvalues[0], torch.tensor([1 - 1 / sigma**2, 1.0]).double())
    assert_close(saddle.margin[0], torch.tensor(abs(1 - 1 / sigma**2)).double().clamp(max=1))
    barrier = {0.5: 1.307189, 0.8: 0.138820}.get(sigma)
    if barrier is not None:
        height = float(saddle.energy[0] - wells.energy[0])
        assert height == pytest.approx(barrier, abs=1e-6)


@pytest.mark.parametrize(
    ("sigma", "counts"), [(0.70, [3, 3, 1]), (0.72, [4, 3, 0]), (0.75, [1, 0, 0])]
)
def test_the_triangle_is_found_whole(sigma: float, counts: list[int]) -> None:
    """At σ = .7 the maximum lies .04 from three saddles: only starts beside it lead there."""
    surface = Surface(EmpiricalData(simplex(2)))
    starts = torch.cartesian_prod(*torch.linspace(-1, 1, 14).expand(2, -1).double())
    starts = torch.cat([1.2 * starts, 0.1 * starts + 0.003])
    found = critical_points(surface, starts, sigma, None, "")
    assert torch.bincount(found.index, minlength=3).tolist() == counts
    assert found.euler_sum == 1
    assert bool(found.proved.all() and found.trusted.all())
    assert bool((found.grad_norm <= 1e-8 * math.sqrt(2)).all())


def test_what_is_known_repels_newton() -> None:
    """From six starts all seven critical points of the triangle, of which Newton finds some."""
    surface, sigma = Surface(EmpiricalData(simplex(2))), 0.5
    starts = 0.5 * torch.randn(6, 2, generator=torch.Generator().manual_seed(0)).double()
    known, counts = torch.empty(0, 2).double(), []
    for _ in range(3):
        found = newton(surface, starts, sigma, None, known=known, steps=40)
        known = torch.cat([known, found.x[found.converged]])
        known = known[distinct(known, 1e-4)]
        counts.append(len(known))
    assert 4 <= counts[0] < counts[-1] == 7
    assert examine(surface, known, sigma).euler_sum == 1


@pytest.mark.parametrize("dim", [20, 40])
def test_many_dimensions_by_krylov_spaces(dim: int) -> None:
    """The simplex at σ = .3: wells near its corners, and saddles between two, in the middle."""
    surface, sigma, corners = Surface(EmpiricalData(simplex(dim))), 0.3, simplex(dim)
    wells = critical_points(surface, corners, sigma, 0, "")
    assert wells.index.tolist() == [0] * (dim + 1)
    a, b = torch.triu_indices(dim + 1, dim + 1, 1)[:, ::7]
    noise = 0.01 * torch.randn(len(a), dim, generator=torch.Generator().manual_seed(0)).double()
    middle = 0.5 * (corners[a] + corners[b])
    found = critical_points(surface, middle + noise, sigma, 1, "")
    saddles = found.of_index(1)
    there = nearest(middle, saddles.x)[0] < 0.1
    assert bool(there.all())
    dense = torch.linalg.eigvalsh(surface.hessian(surface.flat(saddles.x), sigma))
    assert_close(saddles.eigenvalues, dense[:, :4], rtol=0, atol=1e-8)


def test_a_network_is_searched_in_float32_and_found_in_float64() -> None:
    surface = Surface(trained_like(40))
    assert surface.coarse.dtype == torch.float32 and two_points().coarse.dtype == torch.float64
    starts = torch.randn(6, 40, generator=torch.Generator().manual_seed(1)).double()
    found = critical_points(surface, descend(surface, starts, 0.5), 0.5, 0, "")
    assert len(found) >= 1 and bool((found.grad_norm <= 1e-8 * math.sqrt(40)).all())
    assert found.x.dtype == torch.float64 and not bool(found.proved.any())
    dense = torch.linalg.eigvalsh(surface.hessian(surface.flat(found.x), 0.5))
    assert found.index.tolist() == (dense < 0).sum(1).tolist()


def test_descent_never_raises_v() -> None:
    surface, sigma = Surface(EmpiricalData(torch.randn(30, 5).double())), 0.4
    x = torch.randn(20, 5).double()
    value = surface.value(x, sigma)
    for _ in range(10):
        x = descend(surface, x, sigma, steps=1, tolerance=0.0)
        there = surface.value(x, sigma)
        assert bool((there <= value + 1e-13).all())
        value = there


def test_the_bound_on_the_third_derivative_holds() -> None:
    """No difference of Hessians exceeds it; two far points come within a tenth of it."""
    model = EmpiricalData(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).double())
    surface, sigma = Surface(model), torch.tensor([0.9]).double()
    bound = float(model.third_derivative_bound(sigma)[0])
    x = torch.stack([torch.linspace(-2, 2, 4001), torch.zeros(4001)], 1).double()
    curvature = surface.hessian(x, 0.9)[:, 0, 0]
    steepest = float((curvature.diff() / x[:, 0].diff()).abs().max())
    assert 0.9 * bound <= steepest <= bound


def test_saved_points_are_read_again(tmp_path) -> None:
    surface = two_points()
    points = examine(surface, torch.tensor([[0.0, 0.0]]).double(), 0.5)
    points.save(tmp_path / "critical_points.npz")
    again = CriticalPoints.open(tmp_path / "critical_points.npz")
    for name in ("x", "index", "free_energy", "energy", "eigenvalues", "modes", "proved"):
        assert_close(getattr(again, name), getattr(points, name))
    (tmp_path / "critical_points.npz").write_text("nothing")
    with pytest.raises(UserError, match="holds no critical points"):
        CriticalPoints.open(tmp_path / "critical_points.npz")


class Kinked(Energy):
    """V = ½‖x‖² whose gradient is cut off from its graph."""

    shape = (2,)

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        return 0.5 * (x * x.detach()).sum(1)


class Straight(Energy):
    shape = (2,)

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        return x.sum(1)


@pytest.mark.parametrize("model", [Kinked(), Straight()])
def test_an_energy_that_is_not_twice_differentiable_is_refused(model: Energy) -> None:
    with pytest.raises(UserError, match="is not twice differentiable"):
        Surface(model).check(0.5)


def test_bad_input_is_a_sentence() -> None:
    model = GaussianMixture(torch.zeros(1, 2).double())
    model.noise = NoiseRange(0.1, 1.0)
    with pytest.raises(UserError, match=r"sigma = 2 is outside the range .* from 0.1 to 1"):
        Surface(model).check(2.0)
    with pytest.raises(UserError, match="sigma = 0 is outside"):
        two_points().check(0.0)
    baseline = build_denoiser(MLP((2,), width=8, depth=1), 0.5, "unconstrained")
    with pytest.raises(UserError, match="unconstrained denoiser"):
        Surface(baseline)
