"""The Fréchet distance against closed forms."""

import numpy as np
import pytest
import scipy.linalg
import torch

from energydiff.errors import UserError
from energydiff.evaluation import frechet_distance, gaussian_statistics


def random_covariance(dim: int, seed: int, rank: int | None = None) -> torch.Tensor:
    factor = torch.randn(
        dim, rank or dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return factor @ factor.T


def test_statistics_are_those_of_numpy():
    features = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    mean, cov = gaussian_statistics(features)
    assert mean.dtype == cov.dtype == torch.float64
    np.testing.assert_allclose(mean, features.double().mean(0))
    np.testing.assert_allclose(cov, np.cov(features.double().numpy().T), rtol=1e-12)


def test_commuting_covariances_have_a_closed_form():
    a = torch.tensor([4.0, 1.0, 0.25, 9.0], dtype=torch.float64)
    b = torch.tensor([1.0, 1.0, 4.0, 0.0], dtype=torch.float64)
    turn = torch.linalg.qr(random_covariance(4, 1)).Q
    shift = torch.tensor([1.0, -2.0, 0.5, 0.0], dtype=torch.float64)
    got = frechet_distance(
        torch.zeros(4), turn @ a.diag() @ turn.T, shift, turn @ b.diag() @ turn.T
    )
    want = float(shift.square().sum() + (a.sqrt() - b.sqrt()).square().sum())
    assert got == pytest.approx(want, rel=1e-8)


@pytest.mark.parametrize("dim", [2, 10, 64])
def test_non_commuting_covariances_agree_with_scipy(dim):
    cov1, cov2 = random_covariance(dim, 1), random_covariance(dim, 2)
    root = scipy.linalg.sqrtm((cov1 @ cov2).numpy())
    want = 1.0 * dim + float(cov1.trace() + cov2.trace()) - 2 * np.trace(root).real
    got = frechet_distance(torch.zeros(dim), cov1, torch.ones(dim), cov2)
    assert got == pytest.approx(want, rel=1e-8)


def test_rank_deficient_covariances_are_exact():
    # tr (u uᵀ v vᵀ)^½ = |⟨u, v⟩|
    u, v = torch.randn(2, 30, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    zero = torch.zeros(30)
    got = frechet_distance(zero, u[:, None] * u, zero, v[:, None] * v)
    assert got == pytest.approx(float(u @ u + v @ v - 2 * abs(u @ v)), rel=1e-8)


@pytest.mark.parametrize("rank", [3, 20])
def test_distance_to_itself_is_zero(rank):
    cov = random_covariance(20, 4, rank)
    assert frechet_distance(torch.ones(20), cov, torch.ones(20), cov) < 1e-12 * cov.trace()


@pytest.mark.parametrize(
    ("features", "message"),
    [(torch.zeros(1, 4), "at least two"), (torch.full((3, 4), torch.nan), "3 of 3 samples")],
)
def test_statistics_refuse_what_has_no_covariance(features, message):
    with pytest.raises(UserError, match=message):
        gaussian_statistics(features)
