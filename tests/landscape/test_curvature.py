"""Lanczos against dense eigenvalues, and the signs that exact energies must have."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from energydiff.denoisers import build_denoiser
from energydiff.energies import EmpiricalData, GaussianMixture
from energydiff.landscape import curvature
from energydiff.landscape.lanczos import lanczos
from energydiff.potentials import MLP


def symmetric(batch: int, dim: int) -> Tensor:
    matrix = torch.randn(batch, dim, dim).double()
    return matrix + matrix.mT


def product(matrix: Tensor):
    return lambda vector: torch.einsum("bij,bj->bi", matrix, vector)


@pytest.mark.parametrize("dim", [1, 2, 7, 30])
def test_all_iterations_are_exact(dim: int) -> None:
    matrix = symmetric(5, dim)
    low, high, error = lanczos(product(matrix), torch.randn(5, dim).double(), dim)
    values = torch.linalg.eigvalsh(matrix)
    assert_close((low, high), (values[:, 0], values[:, -1]))
    assert error.max() < 1e-8 * values.abs().max()


def test_few_iterations_stay_inside_and_know_their_error() -> None:
    matrix = symmetric(20, 80)
    low, high, error = lanczos(product(matrix), torch.randn(20, 80).double(), 15)
    values = torch.linalg.eigvalsh(matrix)
    assert bool((low >= values[:, 0] - 1e-9).all() and (high <= values[:, -1] + 1e-9).all())
    for found in (low, high):
        nearest = (values - found[:, None]).abs().amin(1)
        assert bool((nearest <= error + 1e-9).all())
    assert bool((values[:, -1] - high < 0.1 * values[:, -1]).all())


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_a_krylov_space_that_ends_early_is_no_end(scale: float) -> None:
    """Two eigenvalues and a start inside the space of one: the other is found all the same."""
    matrix = torch.diag(scale * torch.tensor([1.0, 1.0, 1.0, 4.0])).double()[None]
    start = torch.tensor([[1.0, 2.0, 0.0, 0.0]]).double()
    low, high, _ = lanczos(product(matrix), start, 4)
    assert_close(torch.cat([low, high]), scale * torch.tensor([1.0, 4.0]).double())


def dense(energy, x: Tensor, sigma: float) -> Tensor:
    """Eigenvalues of ∇²V at each x."""
    columns = [
        sigma**2 * energy.hessian_vector_product(x, sigma, unit.expand_as(x))
        for unit in torch.eye(x.shape[1], dtype=x.dtype)
    ]
    return torch.linalg.eigvalsh(torch.stack(columns, 1))


def test_a_gaussian_has_its_curvature() -> None:
    """∇²V = σ²/(s² + σ²) in every direction."""
    energy = GaussianMixture(torch.zeros(1, 6).double(), 0.5)
    found = curvature(energy, torch.randn(4, 6).double(), 0.25)
    expected = torch.full((4,), 0.0625 / 0.3125).double()
    assert_close((found.lowest, found.highest), (expected, expected))
    assert_close(found.denoiser_lowest, 1 - expected)


def test_two_points_are_hyperbolic_between_them() -> None:
    """∇²V = 1 − μ²/σ² along the axis (T3) and 1 across it."""
    energy = EmpiricalData(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).double())
    found = curvature(energy, torch.zeros(1, 2).double(), 0.5)
    assert_close(torch.cat([found.lowest, found.highest]), torch.tensor([-3.0, 1.0]).double())


@pytest.mark.parametrize("sigma", [0.1, 0.5, 3.0])
def test_exact_energies_keep_the_signs(sigma: float) -> None:
    """λ_max(∇²V) ≤ 1, so λ_min(∇D) ≥ 0, and ∂V/∂σ ≥ 0."""
    energy = EmpiricalData(torch.randn(8, 5).double())
    found = curvature(energy, 2 * torch.randn(50, 5).double(), sigma)
    assert bool((found.highest <= 1 + 1e-9).all() and (found.denoiser_lowest >= -1e-9).all())
    assert found.rising_share == 0


def test_a_network_agrees_with_its_dense_hessian() -> None:
    model = build_denoiser(MLP((3,), width=16), 0.5).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    x = torch.randn(6, 3).double()
    found, values = curvature(model, x, 0.4), dense(model, x, 0.4)
    assert_close((found.lowest, found.highest), (values[:, 0], values[:, -1]))


def test_images_and_per_sample_noise() -> None:
    energy = EmpiricalData(torch.randn(4, 1, 3, 3).double())
    sigma = torch.tensor([0.5, 1.0]).double()
    x = torch.randn(2, 1, 3, 3).double()
    both = curvature(energy, x, sigma)
    assert_close(both.highest[1:], curvature(energy, x[1:], 1.0).highest)
    assert_close(both.noise_slope[1:], energy.free_energy_slope(x[1:], 1.0))


def test_the_noise_slope_is_the_derivative_of_v() -> None:
    energy, x, sigma, h = (
        GaussianMixture(torch.randn(3, 4).double(), 0.3),
        torch.randn(5, 4),
        0.7,
        1e-5,
    )
    x = x.double()
    difference = energy.free_energy(x, sigma + h) - energy.free_energy(x, sigma - h)
    assert_close(energy.free_energy_slope(x, sigma), difference / (2 * h), rtol=1e-6, atol=1e-8)


def test_a_gauge_that_lifts_v_at_low_noise_is_seen() -> None:
    class Lifted(EmpiricalData):
        def forward(self, x, sigma, label=None):
            return super().forward(x, sigma, label) - 100 * torch.as_tensor(sigma).log()

    energy = Lifted(torch.randn(4, 3).double())
    found = curvature(energy, torch.randn(10, 3).double(), 1.0)
    assert found.rising_share == 1 and math.isclose(float(found.highest.max()), 1, rel_tol=0.5)


def test_an_operator_that_is_not_finite_has_no_values_and_spoils_no_other() -> None:
    matrix = symmetric(3, 6)
    matrix[1, 2, 2] = math.inf
    low, high, _ = lanczos(product(matrix), torch.randn(3, 6).double(), 6)
    assert torch.isfinite(torch.stack([low, high])).tolist() == [[True, False, True]] * 2
    assert_close(low[[0, 2]], torch.linalg.eigvalsh(matrix[[0, 2]])[:, 0])
