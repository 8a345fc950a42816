"""Distributions of σ against scipy's, and the ranges they refuse."""

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.testing import assert_close

from energydiff.diffusion import LogNormal, LogUniform
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


def test_the_defaults_are_edms() -> None:
    """Karras et al. 2022, table 1: P_mean = −1.2, P_std = 1.2."""
    assert LogNormal() == LogNormal(mean=-1.2, std=1.2)


@pytest.mark.parametrize("noise", [LogNormal(), LogUniform()])
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
        (lambda: LogUniform(2.0, 1.0), "sigma_min = 2.0 and sigma_max = 1.0"),
        (lambda: LogUniform(0.0, 1.0), "sigma_min = 0.0"),
    ],
)
def test_a_spread_that_is_none_is_refused(build, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build()
