"""The heat equation of the density, as an identity of the energy: ∂E/∂σ = σ(ΔE − ‖∇E‖²)."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from energydiff.energies import EmpiricalData, Energy, GaussianMixture


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def laplacian(energy: Energy, x: Tensor, sigma: float) -> Tensor:
    """ΔE, (B,), one Hessian-vector product per axis."""
    axes = torch.eye(x.shape[1], dtype=x.dtype)
    columns = [energy.hessian_vector_product(x, sigma, axis.expand_as(x)) @ axis for axis in axes]
    return torch.stack(columns).sum(0)


@pytest.mark.parametrize("kind", ["points", "mixture"])
@given(st.integers(0, 2**31 - 1), st.floats(0.3, 10))
def test_the_heat_equation_holds(kind: str, seed: int, sigma: float) -> None:
    means, x = normal(seed, 5, 4), 2 * normal(seed + 1, 6, 4)
    energy = EmpiricalData(means) if kind == "points" else GaussianMixture(means, 0.4)
    slope = energy.noise_derivative(x, sigma)  # ∂E/∂log σ
    score = energy.score(x, sigma)
    heat = sigma**2 * (laplacian(energy, x, sigma) - score.square().sum(1))
    assert_close(slope, heat, rtol=1e-10, atol=1e-10)


@given(st.integers(0, 2**31 - 1))
def test_the_noise_derivative_averages_to_zero(seed: int) -> None:
    """E over x ~ p_σ of ∂E/∂log σ is 0, up to the error of the mean of 4,000 samples."""
    means, sigma = normal(seed, 3, 2), 0.7
    x = means.repeat(1334, 1) + sigma * normal(seed + 1, 4002, 2)
    slope = EmpiricalData(means).noise_derivative(x, sigma)
    assert abs(slope.mean().item()) < 6 * slope.std().item() / len(x) ** 0.5
