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


def _square_root(covariance: Tensor) -> Tensor:
    """The symmetric square root; eigenvalues within rounding of 0 count as 0."""
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    rounding = len(values) * torch.finfo(values.dtype).eps * values.abs().max()
    values = torch.where(values > rounding, values, torch.zeros_like(values))
    return vectors * values.sqrt() @ vectors.T
