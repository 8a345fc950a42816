"""T1 and T2 for Gaussian mixtures: energy, denoiser and Jacobian in closed form."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal
from torch.testing import assert_close

from energydiff.energies import GaussianMixture
from energydiff.errors import UserError

seeds = st.integers(0, 2**31 - 1)
sigmas = st.floats(-2, 2).map(lambda exponent: 10**exponent)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def jacobian(energy: GaussianMixture, x: Tensor, sigma: float) -> Tensor:
    """∇D = I − σ²∇²E at one point x (d,), from Hessian-vector products with the axes."""
    axes = torch.eye(len(x), dtype=x.dtype)
    hessian = energy.hessian_vector_product(x.expand(len(x), -1), sigma, axes)
    return axes - sigma**2 * hessian


@given(seeds, sigmas)
def test_the_energy_of_a_gaussian_has_its_constant(seed: int, sigma: float) -> None:
    """T1: E = −log N(x; m, s² + σ²) with a standard deviation per coordinate."""
    mean, std, x = normal(seed, 1, 3), normal(seed + 1, 1, 3).abs(), 5 * normal(seed + 2, 4, 3)
    energy = GaussianMixture(mean, std)(x, sigma)
    spread = (std**2 + sigma**2).sqrt()
    assert_close(energy, -Normal(mean, spread).log_prob(x).sum(1), rtol=1e-12, atol=1e-12)


@given(seeds, sigmas)
def test_the_denoiser_of_a_gaussian_shrinks_towards_its_mean(seed: int, sigma: float) -> None:
    """T1: D = m + Σ(Σ+σ²)⁻¹(x−m), Σ diagonal."""
    mean, std, x = normal(seed, 1, 3), normal(seed + 1, 1, 3).abs(), 5 * normal(seed + 2, 4, 3)
    denoised = GaussianMixture(mean, std).denoise(x, sigma)
    gain = std**2 / (std**2 + sigma**2)
    assert_close(denoised, mean + gain * (x - mean), rtol=0, atol=1e-11)


@given(seeds, sigmas)
def test_the_energy_of_a_mixture_is_the_log_of_a_weighted_sum(seed: int, sigma: float) -> None:
    """T2: E = −log Σ w_k N(x; m_k, s_k² + σ²)."""
    means, stds, weights = normal(seed, 4, 3), torch.tensor([0.0, 0.1, 0.5, 2.0]), [1, 2, 3, 4]
    x = normal(seed + 1, 5, 3)
    energy = GaussianMixture(means, stds, torch.tensor(weights))(x, sigma)
    spread = (stds.double() ** 2 + sigma**2).sqrt()[:, None]
    parts = Normal(means, spread).log_prob(x[:, None]).sum(2)
    shares = torch.tensor(weights, dtype=torch.float64) / 10
    assert_close(energy, -torch.logsumexp(parts + shares.log(), 1), rtol=1e-12, atol=1e-12)


@given(seeds, st.floats(0.05, 10))
def test_the_denoiser_of_a_mixture_is_a_posterior_mean(seed: int, sigma: float) -> None:
    """T2: D = Σ w_k D_k with posterior weights w_k and the Gaussian denoisers D_k."""
    means, std, x = normal(seed, 4, 3), 0.3, normal(seed + 1, 5, 3)
    component = torch.stack([GaussianMixture(m[None], std)(x, sigma) for m in means], 1)
    weights = torch.softmax(-component, 1)
    each = torch.stack([GaussianMixture(m[None], std).denoise(x, sigma) for m in means], 1)
    denoised = GaussianMixture(means, std).denoise(x, sigma)
    assert_close(denoised, (weights[..., None] * each).sum(1), rtol=0, atol=1e-10)


@given(seeds, st.floats(0.3, 5))
def test_the_jacobian_of_the_denoiser_is_a_posterior_covariance(seed: int, sigma: float) -> None:
    """T2: ∇D = Cov(x0 | x)/σ², here the covariance within components plus that between them."""
    means, std, x = normal(seed, 4, 3), 0.4, normal(seed + 1, 1, 3)
    component = torch.stack([GaussianMixture(m[None], std)(x, sigma) for m in means], 1)
    weights = torch.softmax(-component, 1)[0]
    gain = std**2 / (std**2 + sigma**2)
    centres = means + gain * (x - means)
    centres = centres - weights @ centres
    covariance = (
        gain * sigma**2 * torch.eye(3, dtype=x.dtype) + (weights[:, None] * centres).T @ centres
    )
    result = jacobian(GaussianMixture(means, std), x[0], sigma)
    assert_close(result, covariance / sigma**2, rtol=0, atol=1e-10)


def test_weights_are_normalised() -> None:
    means, x = normal(0, 3, 2), normal(1, 5, 2)
    shares, multiples = torch.tensor([0.2, 0.3, 0.5]), torch.tensor([2.0, 3.0, 5.0])
    one, other = (GaussianMixture(means, 0.5, w)(x, 0.7) for w in (shares, multiples))
    assert_close(one, other, rtol=1e-6, atol=0)


def test_every_sample_may_have_its_own_noise() -> None:
    means, x, sigma = normal(0, 3, 1, 2, 2), normal(1, 4, 1, 2, 2), [0.1, 0.5, 2.0, 7.0]
    energy = GaussianMixture(means, 0.2)
    together = energy(x, torch.tensor(sigma, dtype=torch.float64))
    alone = torch.cat([energy(x[i : i + 1], s) for i, s in enumerate(sigma)])
    assert_close(together, alone, rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    ("means", "std", "weights"),
    [
        (torch.zeros(3), 0.1, None),
        (torch.zeros(0, 2), 0.1, None),
        (torch.zeros(2, 2, dtype=torch.int64), 0.1, None),
        (torch.zeros(2, 2), -0.1, None),
        (torch.zeros(2, 2), 0.1, torch.tensor([1.0, 0.0])),
        (torch.zeros(2, 2), 0.1, torch.tensor([1.0, 1.0, 1.0])),
    ],
    ids=["no sample axis", "empty", "integers", "negative std", "zero weight", "too many weights"],
)
def test_nonsense_is_refused(means: Tensor, std: float, weights: Tensor | None) -> None:
    with pytest.raises(UserError):
        GaussianMixture(means, std, weights)
