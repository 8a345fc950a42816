"""Fréchet distance between two Gaussians fitted to features.

    ‖m₁ − m₂‖² + tr(C₁ + C₂ − 2 (C₁^½ C₂ C₁^½)^½)

The squared 2-Wasserstein distance of the Gaussians (Dowson & Landau 1982), used on features of
images by Heusel et al. 2017. It is the published FID only on the published Inception features;
on any other features it is a Fréchet distance and compares only with itself: print the distance
of held-out data beside it, at the same number of samples, because it falls as that number grows.
"""

import torch
from torch import Tensor

from energydiff.errors import UserError
from energydiff.random import PROBE, keyed_order

FEWEST = 20
INFINITY_POINTS = 15


def gaussian_statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (f,) and covariance (f, f) with divisor n − 1, float64, of features (n, f).

    Raises UserError for fewer than two rows, or values that are not finite.
    """
    if features.ndim != 2 or len(features) < 2:
        raise UserError(
            f"a covariance needs features (n, f) of at least two samples, got"
            f" {tuple(features.shape)}."
        )
    finite = features.isfinite().all(1)
    if not bool(finite.all()):
        raise UserError(
            f"{int((~finite).sum())} of {len(features)} samples have features that are not finite."
        )
    features = features.double()
    mean = features.mean(0)
    centred = features - mean
    return mean, centred.T @ centred / (len(features) - 1)


def frechet_distance(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> float:
    """Fréchet distance of N(mean1, cov1) and N(mean2, cov2), in squared units of the features.

    Means (f,), covariances (f, f), symmetric, of any rank; computed in float64.
    """
    mean1, cov1, mean2, cov2 = (t.double() for t in (mean1, cov1, mean2, cov2))
    # tr (C₁^½ C₂ C₁^½)^½ is the sum of the singular values of C₁^½ C₂^½: real, and without the
    # square root of a rounding error that taking it from the eigenvalues of C₁C₂ would cost.
    overlap = torch.linalg.svdvals(_square_root(cov1) @ _square_root(cov2)).sum()
    distance = (mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * overlap
    return max(float(distance), 0.0)


def frechet_infinity(
    features: Tensor, reference_mean: Tensor, reference_cov: Tensor, seed: int = 0
) -> float:
    """The Fréchet distance extrapolated to infinitely many samples (Chong & Forsyth 2020).

    The distance of n samples exceeds that of their distribution by about c/n: it is measured on
    random subsets of 15 sizes, evenly spaced from n/10 to n, and a line in 1/n is fitted by least
    squares; its value at 1/n = 0 is returned and may be negative.

    Limits: only the bias from the samples is removed, not that from the reference, which stays
    finite. The subsets overlap, so the result scatters more than the plain distance and has no
    error bar of its own. Higher orders in f/n are not small below some ten samples per feature:
    subsets have at least f + 2 samples where n allows, and with n of a few f or fewer the result
    is a guess. A check beside the plain distance, not a replacement.

    Args:
        features: (n, f), n at least 20.
        reference_mean, reference_cov: (f,) and (f, f).
        seed: of the subsets.
    """
    n, dim = features.shape
    if n < FEWEST:
        raise UserError(f"the extrapolation needs at least {FEWEST} samples, got {n}.")
    smallest = max(n // 10, min(dim + 2, n // 2))
    sizes = torch.linspace(smallest, n, INFINITY_POINTS, dtype=torch.float64).round().long()
    distances = []
    for i, size in enumerate(sizes.tolist()):
        rows = keyed_order(seed, [i], n, PROBE)[0, :size].to(features.device)
        statistics = gaussian_statistics(features[rows])
        distances.append(frechet_distance(*statistics, reference_mean, reference_cov))
    line = torch.stack([torch.ones_like(sizes), 1 / sizes], 1).double()
    fit = torch.linalg.lstsq(line, torch.tensor(distances, dtype=torch.float64)[:, None])
    return float(fit.solution[0, 0])


def _square_root(covariance: Tensor) -> Tensor:
    """The symmetric square root; eigenvalues within rounding of 0 count as 0."""
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    rounding = len(values) * torch.finfo(values.dtype).eps * values.abs().max()
    values = torch.where(values > rounding, values, torch.zeros_like(values))
    return vectors * values.sqrt() @ vectors.T
