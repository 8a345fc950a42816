"""The gauge c(log σ): free in the energy, absent from the denoiser."""

import torch
from torch.testing import assert_close

from energydiff.denoisers import Gauge, build_denoiser
from energydiff.potentials import MLP


def test_it_is_zero_until_it_is_set() -> None:
    assert not Gauge()(torch.linspace(-9, 9, 50)).any()


def test_it_is_linear_between_its_nodes_and_beyond_them() -> None:
    gauge = Gauge(3)
    gauge.set(torch.tensor([0.0, 1.0, 3.0]), torch.tensor([0.0, 2.0, 0.0]))
    points = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 4.0])
    assert_close(gauge(points), torch.tensor([-2.0, 0.0, 1.0, 2.0, 1.0, 0.0, -1.0]))


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
