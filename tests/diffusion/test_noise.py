"""Distributions of σ against scipy's, and the ranges they refuse."""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.testing import assert_close

from energydiff.diffusion import CoveringLogNormal, LogNormal, LogUniform
from energydiff.errors import UserError

LEVELS = [1e-6, 0.01, 0.25, 0.5, 0.9, 1 - 1e-6]
U = torch.tensor(LEVELS, dtype=torch.float64)


def expected(distribution) -> Tensor:
    return torch.from_numpy(distribution.ppf(LEVELS))


def test_lognormal_quantiles_are_scipys() -> None:
    scipy = stats.lognorm(s=0.7, scale=torch.tensor(-0.4).exp().item())
    assert_close(LogNormal(-0.4, 0.7).quantile(U), expected(scipy), rtol=1e-6, atol=0)


def test_loguniform_quantiles_are_scipys() -> None:
    scipy = stats.loguniform(0.02, 80.0)
    assert_close(LogUniform(0.02, 80.0).quantile(U), expected(scipy), rtol=1e-9, atol=0)


def test_a_share_covers_the_range_and_the_rest_is_lognormal() -> None:
    noise = CoveringLogNormal(-0.4, 0.7, sigma_min=0.01, sigma_max=50.0, share=0.3)
    sigma = noise.quantile((torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000)
    both = [(0.3, stats.loguniform(0.01, 50.0)), (0.7, stats.lognorm(s=0.7, scale=math.exp(-0.4)))]
    for level in (0.005, 0.02, 0.3, 1.0, 5.0, 45.0, 60.0):
        expected = sum(share * part.cdf(level) for share, part in both)
        assert float((sigma < level).double().mean()) == pytest.approx(expected, abs=2e-5)


def test_the_defaults_are_edms() -> None:
    """Karras et al. 2022, table 1: P_mean = −1.2, P_std = 1.2."""
    assert LogNormal() == LogNormal(mean=-1.2, std=1.2)


@pytest.mark.parametrize("noise", [LogNormal(), LogUniform(), CoveringLogNormal()])
def test_quantiles_of_float32_are_finite_and_positive(noise) -> None:
    """At the ends of the uniform numbers that the training stream draws."""
    ends = torch.tensor([2**-25, 1 - 2**-24])
    sigma = noise.quantile(ends)
    assert sigma.dtype == torch.float32
    assert bool((sigma.isfinite() & (sigma > 0)).all())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LogNormal(0.0, 0.0), "noise std is 0.0"),
        (lambda: LogNormal(0.0, float("nan")), "noise std is nan"),
        (lambda: CoveringLogNormal(share=1.0), "noise share is 1.0"),
        (lambda: CoveringLogNormal(std=-1.0), "noise std is -1.0"),
        (lambda: CoveringLogNormal(sigma_max=0.01), "sigma_max = 0.01"),
        (lambda: LogUniform(2.0, 1.0), "sigma_min = 2.0 and sigma_max = 1.0"),
        (lambda: LogUniform(0.0, 1.0), "sigma_min = 0.0"),
    ],
)
def test_a_spread_that_is_none_is_refused(build, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build()
