"""Measures of samples against a reference, all on one set of features.

    Fréchet distance     of Gaussians fitted to both (Heusel et al. 2017); biased upward, ~1/n
    FID∞                 the same, extrapolated to n = ∞ (Chong & Forsyth 2020)
    KID                  MMD² with the kernel (xᵀy/f + 1)³ (Bińkowski et al. 2018); unbiased
    Inception Score      exp E KL(p(y|x) ‖ p(y)) (Salimans et al. 2016); knows no reference
    precision, recall    by nearest neighbours (Kynkäänniemi et al. 2019); both depend on n

The last two are torch-fidelity's; all have its published settings and agree with it, in float64.
"""

import torch
from torch import Tensor

from energydiff.errors import UserError
from energydiff.evaluation.frechet import (
    FEWEST,
    frechet_distance,
    frechet_infinity,
    gaussian_statistics,
)
from energydiff.evaluation.kid import kernel_distance
from energydiff.evaluation.records import Quality
from energydiff.extras import import_extra


def measure_quality(
    features: Tensor, logits: Tensor | None, reference_features: Tensor, seed: int = 0
) -> Quality:
    """All measures of samples against a reference.

    The Inception Score is the mean over ten parts of the samples. Precision and recall take as many
    reference images as samples, evenly spread, as published: both depend on the two numbers, and
    all pairs of a large reference would not fit into memory.

    Args:
        features: of the samples, (n, f).
        logits: of the samples, (n, classes), or None.
        reference_features: (N, f).
        seed: of the subsets that the extrapolation is fitted to.

    Raises UserError for fewer than 20 samples or reference images, or values that are not finite.
    """
    require_measurable(len(features), len(reference_features))
    metrics = import_extra("torch_fidelity", "fid")
    features, reference_features = features.double().cpu(), reference_features.double().cpu()
    mean, cov = gaussian_statistics(features)
    reference = gaussian_statistics(reference_features)
    count = min(len(features), len(reference_features))
    rows = torch.arange(count) * len(reference_features) // count
    prc = metrics.metric_prc.prc_features_to_metric(
        features, reference_features[rows], prc_batch_size=1000, save_cpu_ram=True, verbose=False
    )
    score = None
    if logits is not None:
        isc = metrics.metric_isc.isc_features_to_metric(logits.double().cpu())
        score = isc[metrics.KEY_METRIC_ISC_MEAN]
    return Quality(
        frechet=frechet_distance(mean, cov, *reference),
        frechet_infinity=frechet_infinity(features, *reference, seed=seed),
        kid=kernel_distance(features, reference_features),
        inception_score=score,
        precision=prc[metrics.KEY_METRIC_PRECISION],
        recall=prc[metrics.KEY_METRIC_RECALL],
    )


def require_measurable(samples: int, references: int) -> None:
    """``UserError`` where so few cannot be measured, or the package that measures is missing."""
    import_extra("torch_fidelity", "fid")
    if min(samples, references) < FEWEST:
        raise UserError(
            f"quality needs at least {FEWEST} samples and reference images; there are"
            f" {samples} and {references}."
        )
