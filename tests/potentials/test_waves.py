"""Waves of the values: what noise leaves of them, and their pullback."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from energydiff.errors import UserError
from energydiff.potentials import EnergyUNet
from energydiff.potentials.waves import Waves

STD = 0.8


def seen(waves: Waves, x: Tensor, sigma: Tensor) -> Tensor:
    """Of x, as the denoiser scales it."""
    u = x / (sigma.square() + STD**2).sqrt()[:, None, None, None]
    return waves(u, waves.noise(sigma.log() / 4))


def test_they_are_of_x_and_damped_by_its_noise() -> None:
    waves = Waves((0.5, 3.0), STD).double()
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
    waves = Waves((period,), STD).double()
    left = waves.noise(torch.tensor([sigma], dtype=torch.float64).log() / 4)[0, 1].item()
    assert found.tolist() == pytest.approx([left, 0.0], abs=0.01)


def test_the_pullback_is_autograds() -> None:
    waves = Waves((0.5, 3.0), STD).double()
    u = torch.randn(3, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    noise = torch.rand(3, 3, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(3, 10, 4, 4, dtype=torch.float64)
    expected = torch.autograd.grad((waves(u, noise) * grad).sum(), (u, noise))
    assert_close(waves.pullback(grad, u, noise), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"periods": (0.125,)}, r"periods needs sigma_data"),
        ({"periods": (0.125, 0.0), "sigma_data": 0.8}, r"periods are \[0\.125, 0\.0\]; each must"),
    ],
)
def test_waves_that_cannot_be_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        EnergyUNet((1, 8, 8), 8, (1,), **arguments)  # type: ignore[arg-type]
