"""EDM's coefficients (Karras et al. 2022, table 1), for the baseline and for energies."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from energydiff.denoisers import build_denoiser
from energydiff.errors import NoEnergyError, UserError
from energydiff.potentials import MLP, InnerProduct, SummedOutput

SIGMA_DATA = 0.6


def network() -> MLP:
    backbone = MLP((4,), width=8, depth=1).double()
    with torch.no_grad():
        backbone.output.weight.normal_()
    return backbone


def coefficients(sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """c_skip, c_out and c_in, (B, 1)."""
    sigma = sigma[:, None]
    variance = sigma**2 + SIGMA_DATA**2
    return SIGMA_DATA**2 / variance, sigma * SIGMA_DATA / variance.sqrt(), 1 / variance.sqrt()


def samples() -> tuple[Tensor, Tensor]:
    return torch.randn(5, 4).double(), torch.logspace(-2, 2, 5, dtype=torch.float64)


def test_the_baseline_is_edm() -> None:
    """D = c_skip x + c_out F(c_in x, ¼ log σ)."""
    backbone, (x, sigma) = network(), samples()
    skip, out, scale = coefficients(sigma)
    edm = skip * x + out * backbone(scale * x, sigma.log() / 4)
    denoised = build_denoiser(backbone, SIGMA_DATA, "unconstrained").denoise(x, sigma)
    assert_close(denoised, edm, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("parametrization", "potential"), [("inner_product", InnerProduct), ("sum", SummedOutput)]
)
def test_the_gradient_of_the_potential_plays_the_raw_network(
    parametrization: str, potential: type
) -> None:
    """D = c_skip x + c_out ∇φ(c_in x, ¼ log σ)."""
    backbone, (x, sigma) = network(), samples()
    skip, out, scale = coefficients(sigma)
    u = (scale * x).requires_grad_()
    (raw,) = torch.autograd.grad(potential(backbone)(u, sigma.log() / 4).sum(), u)
    denoised = build_denoiser(backbone, SIGMA_DATA, parametrization).denoise(x, sigma)
    assert_close(denoised, skip * x + out * raw, rtol=1e-9, atol=1e-9)


def test_the_inner_product_potential() -> None:
    """φ = ½⟨u, F(u)⟩."""
    backbone, (u, sigma) = network(), samples()
    half = 0.5 * (u * backbone(u, sigma)).sum(1)
    assert_close(InnerProduct(backbone)(u, sigma), half)


def test_the_summed_potential() -> None:
    """φ = Σ F(u)."""
    backbone, (u, sigma) = network(), samples()
    assert_close(SummedOutput(backbone)(u, sigma), backbone(u, sigma).sum(1))


def test_the_baseline_has_no_energy() -> None:
    model = build_denoiser(network(), SIGMA_DATA, "unconstrained")
    assert model.energy is None
    with pytest.raises(NoEnergyError, match="unconstrained"):
        model.require_energy()


def test_an_energy_is_its_own_energy() -> None:
    model = build_denoiser(network(), SIGMA_DATA)
    assert model.require_energy() is model


@pytest.mark.parametrize("parametrization", ["inner_product", "sum", "unconstrained"])
@pytest.mark.parametrize("sigma_data", [0.0, -1.0, float("nan"), float("inf")])
def test_sigma_data_must_be_a_scale(parametrization: str, sigma_data: float) -> None:
    with pytest.raises(UserError, match="sigma_data"):
        build_denoiser(network(), sigma_data, parametrization)


def test_an_unknown_parametrization_is_named() -> None:
    with pytest.raises(UserError, match="'product'"):
        build_denoiser(network(), SIGMA_DATA, "product")


@pytest.mark.parametrize("parametrization", ["inner_product", "sum", "unconstrained"])
@pytest.mark.parametrize("sigma", [0.0, -1.0])
def test_noise_must_be_positive(parametrization: str, sigma: float) -> None:
    model = build_denoiser(network(), SIGMA_DATA, parametrization)
    with pytest.raises(UserError, match="sigma"):
        model.denoise(torch.zeros(1, 4).double(), sigma)
