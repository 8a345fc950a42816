"""Waves of the values: what noise leaves of them, and their pullback."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from energydiff.denoisers import build_denoiser
from energydiff.errors import UserError
from energydiff.potentials import EnergyUNet
from energydiff.potentials.waves import Waves

STD = 0.8


def seen(waves: Waves, x: Tensor, sigma: Tensor) -> Tensor:
    """Of x, as the denoiser scales it."""
    u = x / (sigma.square() + STD**2).sqrt()[:, None, None, None]
    return waves(u, waves.scales(sigma.log() / 4, STD))


def test_they_are_of_x_and_damped_by_its_noise() -> None:
    waves = Waves((0.5, 3.0)).double()
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    sigma = torch.tensor([0.05, 0.3, 40.0], dtype=torch.float64)
    found = seen(waves, x, sigma).unflatten(1, (-1, 2))
    assert found.shape == (3, 5, 2, 4, 4)
    for i, period in enumerate((0.5, 3.0)):
        omega = 2 * math.pi / period
        left = torch.exp(-0.5 * (omega * sigma).square())[:, None, None, None]
        assert_close(found[:, 1 + i], left * torch.cos(omega * x), rtol=0, atol=1e-6)
        assert_close(found[:, 3 + i], left * torch.sin(omega * x), rtol=0, atol=1e-6)
    assert not found[2, 1:].any()


def test_a_damped_wave_is_the_best_linear_estimate_of_the_clean_one() -> None:
    """By least squares over clean values of any phase and their noise."""
    generator = torch.Generator().manual_seed(0)
    sigma, period = 0.1, 0.7
    omega = 2 * math.pi / period
    x0 = period * torch.rand(400_000, generator=generator, dtype=torch.float64)
    x = x0 + sigma * torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    noisy = torch.stack([torch.cos(omega * x), torch.sin(omega * x)], 1)
    found = torch.linalg.lstsq(noisy, torch.cos(omega * x0)[:, None]).solution.flatten()
    waves = Waves((period,)).double()
    c = torch.tensor([sigma], dtype=torch.float64).log() / 4
    left = waves.scales(c, STD)[0, 1].item()
    assert found.tolist() == pytest.approx([left, 0.0], abs=0.01)


def test_the_pullback_is_autograds() -> None:
    waves = Waves((0.5, 3.0)).double()
    u = torch.randn(3, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    scales = torch.rand(3, 3, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(3, 10, 4, 4, dtype=torch.float64)
    expected = torch.autograd.grad((waves(u, scales) * grad).sum(), (u, scales))
    assert_close(waves.pullback(grad, u, scales), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("period", [0.0, -1.0, math.inf, math.nan])
def test_waves_that_cannot_be_are_refused(period: float) -> None:
    with pytest.raises(UserError, match=r"periods are \[0\.125, .*\]; each must be positive"):
        EnergyUNet((1, 8, 8), 8, (1,), periods=(0.125, period))


def test_the_denoiser_tells_them_the_scale_of_the_data() -> None:
    """Moved by a whole period, in units of x, an image has the same waves."""
    network = EnergyUNet((1, 4, 4), 8, (1,), 1, periods=(0.125,))
    build_denoiser(network, STD, "scalar")
    assert network.sigma_data == STD and network.waves is not None
    scales = network.vectors(torch.tensor([math.log(0.02) / 4]), None)[-1]
    u = torch.randn(1, 1, 4, 4)
    moved = u + 0.125 / (0.02**2 + STD**2) ** 0.5
    assert_close(
        network.waves(moved, scales)[:, 1:], network.waves(u, scales)[:, 1:], rtol=0, atol=1e-4
    )
