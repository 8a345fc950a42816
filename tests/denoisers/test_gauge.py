"""The gauge c(log σ): free in the energy, absent from the denoiser."""

import hypothesis.strategies as st
import torch
from hypothesis import given
from torch.testing import assert_close

from energydiff.denoisers import Gauge, build_denoiser
from energydiff.energies import GaussianMixture
from energydiff.potentials import MLP, NaturalConvex


def test_it_is_zero_until_it_is_set() -> None:
    assert not Gauge()(torch.linspace(-9, 9, 50)).any()


def test_it_goes_through_its_nodes_and_is_linear_beyond_them() -> None:
    gauge = Gauge(4)
    nodes, offset = torch.tensor([0.0, 1.0, 3.0, 4.0]), torch.tensor([0.0, 2.0, -1.0, 5.0])
    gauge.set(nodes, offset)
    assert_close(gauge(nodes), offset)
    for edge, away in ((0.0, -2.5), (4.0, 1.5)):
        slope = gauge.derivative(torch.tensor(edge))
        assert_close(gauge(torch.tensor(edge + away)), gauge(torch.tensor(edge)) + away * slope)
        assert_close(gauge.derivative(torch.tensor(edge + away)), slope)


def test_it_is_exact_for_a_parabola_on_any_grid_up_to_both_ends() -> None:
    """As a gauge of straight lines is not: its slope is off by half its change over an interval."""
    gauge = Gauge(5).double()
    nodes = torch.tensor([-2.0, -1.5, 0.0, 0.3, 2.0]).double()
    gauge.set(nodes, 3 * nodes.square() - nodes)
    points = torch.linspace(-2, 2, 41).double()
    assert_close(gauge(points), 3 * points.square() - points)
    assert_close(gauge.derivative(points), 6 * points - 1)


@given(seed=st.integers(0, 2**32 - 1))
def test_its_derivative_is_autograds_and_continuous(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    gauge = Gauge(9).double()
    nodes = torch.rand(9, generator=generator).double().add(0.1).cumsum(0)
    gauge.set(nodes, torch.randn(9, generator=generator).double())
    points = torch.linspace(-1.0, 12.0, 101).double().requires_grad_()
    (slope,) = torch.autograd.grad(gauge(points).sum(), points)
    assert_close(gauge.derivative(points), slope)
    assert_close(gauge.derivative(nodes - 1e-9), gauge.derivative(nodes + 1e-9), atol=1e-4, rtol=0)


def test_its_slope_reaches_the_noise_derivative() -> None:
    model = build_denoiser(MLP((3,), width=8), 0.5).eval()
    x = torch.randn(4, 3)
    before = model.noise_derivative(x, 0.7)
    model.gauge.set(torch.linspace(-5, 5, 65), 3 * torch.linspace(-5, 5, 65))
    assert_close(model.noise_derivative(x, 0.7), before + 3)


def test_it_leaves_the_denoiser_alone() -> None:
    model = build_denoiser(MLP((3,), width=8), 0.5).eval()
    x = torch.randn(4, 3)
    before = model.denoise(x, 0.7)
    model.gauge.set(torch.linspace(-5, 5, 65), torch.randn(65))
    assert torch.equal(model.denoise(x, 0.7), before)


def test_it_travels_with_the_weights() -> None:
    one, other = (build_denoiser(MLP((3,), width=8), 0.5) for _ in range(2))
    one.gauge.set(torch.linspace(-4, 4, 65), torch.randn(65))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.gauge.offset, other.gauge.offset)
    assert torch.equal(one.gauge.log_sigma, other.gauge.log_sigma)
    points = torch.linspace(-5, 5, 50)
    assert torch.equal(one.gauge(points), other.gauge(points))


def test_an_energy_says_whether_its_constant_is_known() -> None:
    model = build_denoiser(MLP((3,), width=8), 0.5)
    assert not model.normalised
    model.gauge.set(torch.linspace(-5, 5, 65), torch.ones(65))
    assert model.normalised
    assert build_denoiser(NaturalConvex((3,), 4, 4), 0.5, "natural").normalised
    assert GaussianMixture(torch.zeros(1, 3), 0.2).normalised
    assert not build_denoiser(MLP((3,), width=8), 0.5, "squared_norm").normalised
