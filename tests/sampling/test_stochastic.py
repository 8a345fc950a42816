"""Ancestral sampling and churn: exact moments on a Gaussian, and no pass to be had."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from energydiff.energies import GaussianMixture
from energydiff.errors import UserError
from energydiff.sampling import Ancestral, Churn, Euler, Heun, Sampler, certify, karras_sigmas

STD, HIGH, LOW, COUNT, DIM = 0.5, 10.0, 0.05, 2_000, 10
GAUSSIAN = GaussianMixture(torch.zeros(1, DIM).double(), STD)


def variance_of(sampler: Sampler) -> tuple[float, float]:
    """Mean and variance over samples and coordinates."""
    x = sampler(GAUSSIAN, seeds=range(COUNT), trace=False).samples.double()
    return x.mean().item(), x.var().item()


def shrink(sigma: float) -> float:
    """D = shrink · x."""
    return STD**2 / (STD**2 + sigma**2)


def ancestral_variance(sigmas: Tensor, noise: float) -> float:
    """x' = D + (σ_down/σ)(x − D) + σ_up z is linear in x here, so its variance is a recursion."""
    variance = HIGH**2
    for high, low in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
        up = noise * low * math.sqrt(1 - (low / high) ** 2)
        keep = math.sqrt(low**2 - up**2) / high
        variance *= (shrink(high) + keep * (1 - shrink(high))) ** 2
        variance += up**2
    return variance


def churn_variance(sigmas: Tensor, gamma: float, scale: float) -> float:
    variance = HIGH**2
    for sigma, low in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
        high = (1 + gamma) * sigma
        variance += scale**2 * (high**2 - sigma**2)
        slope = (1 - shrink(high)) / high
        guess = 1 + (low - high) * slope
        end = (1 - shrink(low)) / low * guess
        variance *= (1 + (low - high) * 0.5 * (slope + end)) ** 2
    return variance


# Four standard errors of a variance.
CLOSE = 4 * math.sqrt(2 / (DIM * COUNT))


@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0])
def test_ancestral_variance_is_its_recursion(noise: float) -> None:
    sigmas = karras_sigmas(12, LOW, HIGH)
    mean, variance = variance_of(Ancestral(sigmas, noise=noise))
    assert variance == pytest.approx(ancestral_variance(sigmas, noise), rel=CLOSE)
    assert mean == pytest.approx(0, abs=4 * math.sqrt(variance / (DIM * COUNT)))


@pytest.mark.parametrize(("churn", "scale"), [(2.0, 1.0), (40.0, 1.0), (40.0, 1.05)])
def test_churn_variance_is_its_recursion(churn: float, scale: float) -> None:
    sigmas = karras_sigmas(12, LOW, HIGH)
    _, variance = variance_of(Churn(sigmas, churn=churn, noise_scale=scale))
    gamma = min(churn / 12, math.sqrt(2) - 1)
    assert variance == pytest.approx(churn_variance(sigmas, gamma, scale), rel=CLOSE)


@pytest.mark.parametrize("sampler", [Ancestral, Churn])
def test_the_distribution_is_right_with_enough_steps(sampler: type[Sampler]) -> None:
    """The recursions above, taken to 3,000 steps."""
    exact = STD**2 + LOW**2
    many = karras_sigmas(3000, LOW, HIGH)
    limit = (
        ancestral_variance(many, 1.0)
        if sampler is Ancestral
        else churn_variance(many, 40 / 3000, 1.0)
    )
    assert limit == pytest.approx(exact, rel=3e-3)


def test_without_noise_they_are_the_deterministic_samplers() -> None:
    sigmas, seeds = karras_sigmas(7, LOW, HIGH), range(5)
    for still, plain in ((Ancestral(sigmas, noise=0), Euler), (Churn(sigmas, churn=0), Heun)):
        expected = plain(sigmas)(GAUSSIAN, seeds=seeds).samples
        assert_close(still(GAUSSIAN, seeds=seeds).samples, expected)


def test_churn_keeps_to_its_range() -> None:
    sigmas, seeds = karras_sigmas(7, LOW, HIGH), range(5)
    outside = Churn(sigmas, noise_min=20.0)(GAUSSIAN, seeds=seeds)
    assert_close(outside.samples, Heun(sigmas)(GAUSSIAN, seeds=seeds).samples)
    assert outside.nfe == 14


@pytest.mark.parametrize("sampler", [Ancestral, Churn])
def test_there_are_rates_and_no_pass(sampler: type[Sampler]) -> None:
    """V rises in some steps, as it should; the landscape part never, as theory proves."""
    certificate = certify(sampler(karras_sigmas(18, LOW, HIGH))(GAUSSIAN, seeds=range(200)).trace)
    assert certificate.holds is None and certificate.claim == "stochastic"
    assert 0.02 < certificate.rises / certificate.steps < 0.5
    assert certificate.landscape_rises == 0 and certificate.landscape_claim == "proved"
    assert certificate.armijo_min is None


def test_even_a_run_that_only_fell_is_no_pass() -> None:
    certificate = certify(Ancestral([1.0, 0.9], noise=0.0)(GAUSSIAN, seeds=[1]).trace)
    assert certificate.rises == 0 and certificate.holds is None


def test_noise_needs_seeds() -> None:
    with pytest.raises(UserError, match="give it seeds"):
        Ancestral(karras_sigmas(3, LOW, HIGH))(GAUSSIAN, x_init=torch.zeros(2, DIM))
    with pytest.raises(UserError, match="2 samples, but there are 3 seeds"):
        Ancestral(karras_sigmas(3, LOW, HIGH))(GAUSSIAN, torch.zeros(2, DIM), seeds=range(3))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda s: Ancestral(s, noise=1.5), "noise is 1.5"),
        (lambda s: Churn(s, churn=-1.0), "churn is -1.0"),
        (lambda s: Churn(s, noise_scale=0.0), "noise_scale 0.0"),
    ],
)
def test_settings_that_are_none_are_refused(build, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(karras_sigmas(3, LOW, HIGH))
