"""The data set as an energy: T2, its equality with a mixture of points, precision and memory."""

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from energydiff.energies import EmpiricalData, Energy, GaussianMixture
from energydiff.errors import UserError

seeds = st.integers(0, 2**31 - 1)
sigmas = st.floats(-2, 2).map(lambda exponent: 10**exponent)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def posterior(data: Tensor, x: Tensor, sigma: float) -> Tensor:
    """Weights of the data given x, (B, K), by brute force."""
    squared = (x.flatten(1)[:, None] - data.flatten(1)).square().sum(2)
    return torch.softmax(-squared / (2 * sigma**2), 1)


@given(seeds, sigmas)
def test_the_denoiser_is_a_softmax_average(seed: int, sigma: float) -> None:
    """T2: D = Σ w_i y_i."""
    data, x = normal(seed, 7, 3), normal(seed + 1, 5, 3)
    denoised = EmpiricalData(data).denoise(x, sigma)
    assert_close(denoised, posterior(data, x, sigma) @ data, rtol=0, atol=1e-10)


@given(seeds, st.floats(0.3, 5))
def test_the_jacobian_of_the_denoiser_is_the_covariance(seed: int, sigma: float) -> None:
    """T2: ∇D = Cov_w(y)/σ²."""
    data, x = normal(seed, 7, 3), normal(seed + 1, 1, 3)
    axes = torch.eye(3, dtype=torch.float64)
    hessian = EmpiricalData(data).hessian_vector_product(x.expand(3, -1), sigma, axes)
    weights = posterior(data, x, sigma)[0]
    centred = data - weights @ data
    covariance = (weights[:, None] * centred).T @ centred
    assert_close(axes - sigma**2 * hessian, covariance / sigma**2, rtol=0, atol=1e-10)


@given(seeds, sigmas)
def test_it_equals_a_mixture_of_points(seed: int, sigma: float) -> None:
    data, x = normal(seed, 6, 1, 2, 2), normal(seed + 1, 5, 1, 2, 2)
    one, other = EmpiricalData(data), GaussianMixture(data, std=0)
    assert_close(one(x, sigma), other(x, sigma), rtol=1e-9, atol=1e-9)


@given(st.integers(1, 12))
def test_the_size_of_a_chunk_does_not_matter(chunk: int) -> None:
    data, x = normal(0, 10, 4), 3 * normal(1, 5, 4)
    for one, other in zip(
        EmpiricalData(data, chunk).value_and_grad(x, 0.2),
        EmpiricalData(data).value_and_grad(x, 0.2),
        strict=True,
    ):
        assert_close(one, other, rtol=1e-12, atol=1e-12)


@given(seeds, st.floats(0.05, 20))
def test_the_analytic_gradient_is_that_of_autograd(seed: int, sigma: float) -> None:
    energy, x = EmpiricalData(normal(seed, 9, 4), chunk=4), normal(seed + 1, 5, 4)
    autograds = Energy.gradient(energy, x, torch.full((5,), sigma, dtype=x.dtype), None)
    for one, other in zip(energy.value_and_grad(x, sigma), autograds, strict=True):
        assert_close(one, other, rtol=1e-9, atol=1e-9)


def close_neighbours() -> tuple[Tensor, Tensor]:
    """Float32 images so near one another that at σ = 0.02 several share the posterior."""
    base, around = normal(0, 1, 3, 32, 32), 0.001 * normal(1, 40, 3, 32, 32)
    data = (base + around).float()
    x = data[:8] + 0.02 * normal(2, 8, 3, 32, 32).float()
    return data, x


def test_close_neighbours_share_the_posterior() -> None:
    """Otherwise the next two tests would ask nothing of the weights."""
    data, x = close_neighbours()
    assert posterior(data.double(), x.double(), 0.02).amax(1).median() < 0.99


def test_float32_energies_are_exact_to_their_rounding() -> None:
    """In float32 the cancellation of squared norms would cost tenths of a nat here."""
    data, x = close_neighbours()
    squared = (x.double()[:, None] - data.double()).flatten(2).square().sum(2)
    constant = math.log(len(data)) + data[0].numel() / 2 * math.log(2 * math.pi * 0.02**2)
    exact = constant - torch.logsumexp(-squared / (2 * 0.02**2), 1)
    assert_close(EmpiricalData(data)(x, 0.02).double(), exact, rtol=1e-7, atol=0)


def test_float32_denoising_is_exact_to_its_rounding() -> None:
    data, x = close_neighbours()
    exact = posterior(data.double(), x.double(), 0.02) @ data.double().flatten(1)
    denoised = EmpiricalData(data).denoise(x, 0.02)
    assert_close(denoised.double().flatten(1), exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("data", [torch.zeros(3), torch.zeros(0, 2), torch.zeros(2, 2).long()])
def test_nonsense_is_refused(data: Tensor) -> None:
    with pytest.raises(UserError):
        EmpiricalData(data)


GROWTH = """
import resource, torch
from energydiff.energies import EmpiricalData
torch.set_num_threads(2)
energy = EmpiricalData(torch.rand(50_000, 3, 32, 32))
x = torch.rand(64, 3, 32, 32)
energy.data.sum()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
energy.value_and_grad(x, 0.5)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data_set() -> None:
    """50,000 colour images take 600 MB; distances to all of them at once would take 78 GB."""
    run = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True)
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(run.stdout) * unit < 400e6
