"""Measures of samples against a reference, all on one set of features.

    Fréchet distance     of Gaussians fitted to both (Heusel et al. 2017); biased upward, ~1/n
    FID∞                 the same, extrapolated to n = ∞ (Chong & Forsyth 2020)
    KID                  MMD² with the kernel (xᵀy/f + 1)³ (Bińkowski et al. 2018); unbiased
    Inception Score      exp E KL(p(y|x) ‖ p(y)) (Salimans et al. 2016); knows no reference
    precision, recall    by nearest neighbours (Kynkäänniemi et al. 2019); both depend on n

All but the first two are torch-fidelity's, with its published settings, in float64.
"""

import torch
from torch import Tensor

from energydiff.errors import UserError
from energydiff.evaluation.comparison import Quality
from energydiff.evaluation.extras import import_extra
from energydiff.evaluation.frechet import frechet_distance, gaussian_statistics
from energydiff.random import PROBE, keyed_generator

FEWEST = 20
KID_SUBSET = 1000
INFINITY_POINTS = 15


def measure_quality(
    features: Tensor, logits: Tensor | None, reference_features: Tensor, seed: int = 0
) -> Quality:
    """All measures of samples against a reference.

    KID is the mean over 100 subsets of 1,000 samples of each, as published; of fewer samples, over
    subsets of all of the smaller set. Every subset is unbiased, whatever its size. The Inception
    Score is the mean over ten parts. Subsets and parts are drawn with torch-fidelity's own seed,
    so two models measured at the same n meet the same ones.

    Args:
        features: of the samples, (n, f).
        logits: of the samples, (n, classes), or None.
        reference_features: (N, f).
        seed: of the subsets that the extrapolation is fitted to.

    Raises UserError for fewer than 20 samples or reference images, or values that are not finite.
    """
    metrics = import_extra("torch_fidelity", "fid")
    n, count = len(features), len(reference_features)
    if min(n, count) < FEWEST:
        raise UserError(
            f"quality needs at least {FEWEST} samples and reference images; there are {n} and"
            f" {count}."
        )
    mean, cov = gaussian_statistics(features)
    reference = gaussian_statistics(reference_features)
    # Distances and cubes lose in float32 what a good model differs by.
    pair = features.double().cpu(), reference_features.double().cpu()
    kid = metrics.metric_kid.kid_features_to_metric(
        *pair, kid_subset_size=min(KID_SUBSET, n, count), verbose=False
    )
    prc = metrics.metric_prc.prc_features_to_metric(*pair, save_cpu_ram=True, verbose=False)
    score = None
    if logits is not None:
        isc = metrics.metric_isc.isc_features_to_metric(logits.double().cpu())
        score = isc[metrics.KEY_METRIC_ISC_MEAN]
    return Quality(
        frechet=frechet_distance(mean, cov, *reference),
        frechet_infinity=frechet_infinity(features, *reference, seed=seed),
        kid=kid[metrics.KEY_METRIC_KID_MEAN],
        inception_score=score,
        precision=prc[metrics.KEY_METRIC_PRECISION],
        recall=prc[metrics.KEY_METRIC_RECALL],
    )


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
        rows = keyed_generator(seed, i, PROBE).permutation(n)[:size]
        statistics = gaussian_statistics(features[torch.from_numpy(rows).to(features.device)])
        distances.append(frechet_distance(*statistics, reference_mean, reference_cov))
    line = torch.stack([torch.ones_like(sizes), 1 / sizes], 1).double()
    fit = torch.linalg.lstsq(line, torch.tensor(distances, dtype=torch.float64)[:, None])
    return float(fit.solution[0, 0])
