"""§3 on exact energies: what makes V = σ²[E − (d/2) log 2πσ²] a Lyapunov function."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from energydiff.energies import EmpiricalData, Energy, GaussianMixture

seeds = st.integers(0, 2**31 - 1)
sigmas = st.floats(-1.3, 1.3).map(lambda exponent: 10**exponent)
kinds = st.sampled_from(["points", "mixture"])


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exact_energy(kind: str, seed: int) -> Energy:
    means = normal(seed, 5, 3)
    if kind == "points":
        return EmpiricalData(means)
    weights = torch.tensor([1.0, 2, 3, 4, 5])
    return GaussianMixture(means, torch.tensor([0.0, 0.1, 0.3, 0.5, 1.0]), weights)


def start(seed: int, batch: int = 20) -> Tensor:
    """Points near the data and far from it."""
    return normal(seed + 1, batch, 3) * torch.logspace(-1, 1, batch)[:, None]


def rounding(*values: Tensor) -> Tensor:
    """A generous rounding allowance for a difference of such values."""
    return 1e-11 * sum(value.abs() for value in values)


def noise_slope(energy: Energy, x: Tensor, sigma: float) -> Tensor:
    """∂V/∂σ at fixed x, (B,), from ∂E/∂log σ."""
    slope = energy.noise_derivative(x, sigma) - energy.dim
    return 2 * energy.free_energy(x, sigma) / sigma + sigma * slope


@given(kinds, seeds, sigmas)
def test_claim_1_the_gradient_of_v_is_the_denoising_residual(
    kind: str, seed: int, sigma: float
) -> None:
    """∇V = x − D(x, σ), V by autograd alone."""
    energy, x = exact_energy(kind, seed), start(seed).requires_grad_()
    (grad,) = torch.autograd.grad(energy.free_energy(x, sigma).sum(), x)
    assert_close(grad, x.detach() - energy.denoise(x.detach(), sigma), rtol=1e-9, atol=1e-9)


@given(seeds, sigmas)
def test_claim_2_the_slope_in_noise_is_a_divergence_from_the_data(seed: int, sigma: float) -> None:
    """∂V/∂σ = 2σ KL(posterior ‖ p0) for K equally likely points."""
    data, x = normal(seed, 5, 3), start(seed)
    log_weights = torch.log_softmax(-torch.cdist(x, data).square() / (2 * sigma**2), 1)
    divergence = (log_weights.exp() * (log_weights + math.log(5))).sum(1)
    slope = noise_slope(EmpiricalData(data), x, sigma)
    scale = x.square().sum(1).amax().item() / sigma
    assert_close(slope, 2 * sigma * divergence, rtol=1e-9, atol=1e-10 * max(1.0, scale))


@given(seeds, sigmas, st.floats(0.1, 3))
def test_claim_2_on_a_gaussian(seed: int, sigma: float, std: float) -> None:
    """The posterior of N(m, s²I) is N(D, τ²I), 1/τ² = 1/s² + 1/σ²; the divergence is textbook."""
    mean, x = normal(seed, 1, 3), start(seed)
    energy = GaussianMixture(mean, std)
    ratio = sigma**2 / (std**2 + sigma**2)  # τ²/s²
    shift = (energy.denoise(x, sigma) - mean).square().sum(1) / std**2
    divergence = 0.5 * (3 * (ratio - 1 - math.log(ratio)) + shift)
    assert_close(noise_slope(energy, x, sigma), 2 * sigma * divergence, rtol=1e-8, atol=1e-8)


@given(kinds, seeds, sigmas, st.floats(0.05, 1))
def test_claim_2_less_noise_is_less_free_energy(
    kind: str, seed: int, sigma: float, factor: float
) -> None:
    energy, x = exact_energy(kind, seed), start(seed)
    noisy, quiet = energy.free_energy(x, sigma), energy.free_energy(x, factor * sigma)
    assert bool((quiet <= noisy + rounding(quiet, noisy)).all())


@given(kinds, seeds, sigmas)
def test_claim_3_no_curvature_of_v_is_above_one(kind: str, seed: int, sigma: float) -> None:
    """V − ½‖x‖² is concave: ∇²V ⪯ I."""
    energy, x = exact_energy(kind, seed), normal(seed + 1, 1, 3)
    axes = torch.eye(3, dtype=torch.float64)
    hessian = sigma**2 * energy.hessian_vector_product(x.expand(3, -1), sigma, axes)
    assert torch.linalg.eigvalsh(hessian).max().item() <= 1 + 1e-9


@given(kinds, seeds, sigmas, st.floats(0, 2))
def test_claim_3_a_step_of_any_size_descends_by_its_bound(
    kind: str, seed: int, sigma: float, eta: float
) -> None:
    """V(x − η∇V, σ) ≤ V(x, σ) − η(1 − η/2)‖∇V‖² for 0 ≤ η ≤ 2."""
    energy, x = exact_energy(kind, seed), start(seed)
    before, residual = energy.free_energy(x, sigma), x - energy.denoise(x, sigma)
    after = energy.free_energy(x - eta * residual, sigma)
    bound = eta * (1 - eta / 2) * residual.square().sum(1)
    assert bool((after <= before - bound + rounding(before, after, bound)).all())


def test_claim_3_ends_at_two() -> None:
    """A step beyond η = 2 can climb: past the mean of a narrow Gaussian, for one."""
    energy, x = GaussianMixture(torch.zeros(1, 2), 1e-3), torch.ones(1, 2)
    after = x - 2.1 * (x - energy.denoise(x, 1.0))
    assert energy.free_energy(after, 1.0) > energy.free_energy(x, 1.0)


@given(kinds, seeds, sigmas, st.floats(0.02, 1))
def test_claim_4_one_euler_step_descends_by_its_bound(
    kind: str, seed: int, sigma: float, factor: float
) -> None:
    """V(x', σ') ≤ V(x, σ) − ½(1 − (σ'/σ)²)‖x − D‖² for the DDIM step from σ to σ'."""
    energy, x = exact_energy(kind, seed), start(seed)
    residual = x - energy.denoise(x, sigma)
    stepped = x - (1 - factor) * residual
    before, after = energy.free_energy(x, sigma), energy.free_energy(stepped, factor * sigma)
    bound = 0.5 * (1 - factor**2) * residual.square().sum(1)
    assert bool((after <= before - bound + rounding(before, after, bound)).all())


@given(kinds, seeds, st.floats(0.3, 10))
def test_claim_5_v_along_the_flow(kind: str, seed: int, sigma: float) -> None:
    """dV/dσ = ‖∇V‖²/σ + ∂V/∂σ along dx/dσ = (x − D)/σ, by central differences."""
    energy, x = exact_energy(kind, seed), normal(seed + 1, 5, 3)
    residual, h = x - energy.denoise(x, sigma), 1e-5 * sigma
    later = energy.free_energy(x + h * residual / sigma, sigma + h)
    earlier = energy.free_energy(x - h * residual / sigma, sigma - h)
    expected = residual.square().sum(1) / sigma + noise_slope(energy, x, sigma)
    assert_close((later - earlier) / (2 * h), expected, rtol=1e-6, atol=1e-7 * max(1, sigma))


@given(kinds, seeds, sigmas)
def test_claim_5_both_parts_are_non_negative(kind: str, seed: int, sigma: float) -> None:
    energy, x = exact_energy(kind, seed), start(seed)
    allowance = 1e-11 * (1 + x.square().sum(1)) * max(sigma, 1 / sigma)
    assert bool((noise_slope(energy, x, sigma) >= -allowance).all())


@given(kinds, seeds, sigmas)
def test_v_is_not_negative(kind: str, seed: int, sigma: float) -> None:
    energy = exact_energy(kind, seed)
    x = torch.cat([start(seed), normal(seed, 5, 3)])  # the last are the data themselves
    allowance = 1e-12 * sigma**2 * (1 + energy(x, sigma).abs())
    assert bool((energy.free_energy(x, sigma) >= -allowance).all())


@given(seeds, st.floats(-4, 1).map(lambda exponent: 10**exponent))
def test_v_tends_to_half_the_squared_distance_to_the_data(seed: int, sigma: float) -> None:
    """½ dist² ≤ V ≤ ½ dist² + σ² log K, so the limit holds with a rate."""
    data, x = normal(seed, 5, 3), start(seed)
    half = 0.5 * torch.cdist(x, data).square().amin(1)
    excess = EmpiricalData(data).free_energy(x, sigma) - half
    allowance = 1e-12 * (1 + x.square().sum(1))
    assert bool(((excess >= -allowance) & (excess <= sigma**2 * math.log(5) + allowance)).all())


@given(seeds, sigmas)
def test_v_is_the_least_of_all_free_energies(seed: int, sigma: float) -> None:
    """V = min over q of E_q ½‖x − y‖² + σ² KL(q ‖ p0): no random q is below it."""
    data, x = normal(seed, 5, 3), start(seed)
    log_q = torch.log_softmax(5 * normal(seed + 2, 20, 5), 1)
    half = 0.5 * torch.cdist(x, data).square()
    free = (log_q.exp() * (half + sigma**2 * (log_q + math.log(5)))).sum(1)
    least = EmpiricalData(data).free_energy(x, sigma)
    assert bool((least <= free + rounding(free)).all())


@given(seeds, sigmas)
def test_the_posterior_attains_the_minimum(seed: int, sigma: float) -> None:
    data, x = normal(seed, 5, 3), start(seed)
    half = 0.5 * torch.cdist(x, data).square()
    log_q = torch.log_softmax(-half / sigma**2, 1)
    free = (log_q.exp() * (half + sigma**2 * (log_q + math.log(5)))).sum(1)
    assert_close(EmpiricalData(data).free_energy(x, sigma), free, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("x", "sign"), [(0.0, -1), (1.0, 1)], ids=["on the ridge", "in a well"])
def test_the_raw_energy_may_go_either_way(x: float, sign: int) -> None:
    """dE/dσ = σΔE along the flow: E rises as noise falls between two points, and falls at one."""
    energy = EmpiricalData(torch.tensor([[1.0], [-1.0]], dtype=torch.float64))
    here, sigma, h = torch.tensor([[x]], dtype=torch.float64), 0.6, 1e-5
    slope = (here - energy.denoise(here, sigma)) / sigma
    change = energy(here + h * slope, sigma + h) - energy(here - h * slope, sigma - h)
    laplacian = energy.hessian_vector_product(here, sigma, torch.ones_like(here))
    assert_close(change / (2 * h), sigma * laplacian[0], rtol=1e-6, atol=1e-8)
    assert change.sign().item() == sign
