"""The denoising loss: its scale, its optimum and its shape."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from energydiff.denoisers import build_denoiser
from energydiff.diffusion import denoising_loss
from energydiff.energies import EmpiricalData, GaussianMixture
from energydiff.potentials import MLP

DIM, STD = 8, 0.6
LEVELS = [0.02, 0.3, 1.0, 10.0]


def gaussian_batch(count: int, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
    x0 = STD * torch.randn(count, DIM, dtype=torch.float64)
    return x0, torch.full((count,), sigma, dtype=torch.float64), torch.randn_like(x0)


@pytest.mark.parametrize("sigma", LEVELS)
@pytest.mark.parametrize("parametrization", ["inner_product", "sum", "unconstrained"])
def test_a_model_that_knows_nothing_scores_one(sigma: float, parametrization: str) -> None:
    """D = c_skip x on data of RMS σ_d: the raw network's target has unit variance."""
    model = build_denoiser(MLP((DIM,), width=8, depth=1), STD, parametrization).double()
    x0, levels, noise = gaussian_batch(4_000, sigma)
    loss = denoising_loss(model, x0, levels, noise, STD).mean().item()
    assert loss == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("sigma", LEVELS)
@pytest.mark.parametrize("std", [0.2, 0.6, 1.5])
def test_the_exact_denoiser_of_a_gaussian_scores_its_closed_form(sigma: float, std: float) -> None:
    """Posterior variance s²σ²/(s²+σ²) times the weight (σ²+σ_d²)/(σσ_d)², data of RMS s."""
    energy = GaussianMixture(torch.zeros(1, DIM, dtype=torch.float64), std)
    x0, levels, noise = gaussian_batch(4_000, sigma)
    x0 = x0 * std / STD
    expected = std**2 / (std**2 + sigma**2) * (sigma**2 + STD**2) / STD**2
    loss = denoising_loss(energy, x0, levels, noise, STD).mean().item()
    assert loss == pytest.approx(expected, rel=0.03)


def test_a_memorised_image_costs_nothing() -> None:
    """With one point in the data set D is that point at every noise."""
    point = torch.randn(1, 2, 3, dtype=torch.float64)
    x0, sigma = point.expand(4, 2, 3), torch.tensor(LEVELS, dtype=torch.float64)
    loss = denoising_loss(EmpiricalData(point), x0, sigma, torch.randn_like(x0), STD)
    assert_close(loss, torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-9)


def test_every_image_has_a_loss_of_its_own() -> None:
    """(B,), each with its σ, unmoved by the rest of the batch."""
    energy = GaussianMixture(torch.randn(3, 1, 4, 4, dtype=torch.float64), 0.1)
    x0 = torch.randn(5, 1, 4, 4, dtype=torch.float64)
    noise, sigma = torch.randn_like(x0), torch.logspace(-1, 1, 5, dtype=torch.float64)
    together = denoising_loss(energy, x0, sigma, noise, STD)
    alone = [
        denoising_loss(energy, x0[i : i + 1], sigma[i : i + 1], noise[i : i + 1], STD)
        for i in range(5)
    ]
    assert together.shape == (5,)
    assert_close(together, torch.cat(alone))
