"""Measures of samples against a reference, all on one set of features.

    Fréchet distance     of Gaussians fitted to both (Heusel et al. 2017); biased upward, ~1/n
    FID∞                 the same, extrapolated to n = ∞ (Chong & Forsyth 2020)
    KID                  MMD² with the kernel (xᵀy/f + 1)³ (Bińkowski et al. 2018); unbiased
    Inception Score      exp E KL(p(y|x) ‖ p(y)) (Salimans et al. 2016); knows no reference
    precision, recall    by nearest neighbours (Kynkäänniemi et al. 2019); both depend on n

The last two are torch-fidelity's; all have its published settings and agree with it, in float64.
"""

import numpy as np
import torch
from torch import Tensor

from energydiff.errors import UserError
from energydiff.evaluation.extras import import_extra
from energydiff.evaluation.frechet import frechet_distance, gaussian_statistics
from energydiff.evaluation.records import Quality
from energydiff.random import PROBE, keyed_generator

FEWEST = 20
KID_SUBSETS, KID_SUBSET = 100, 1000
DEFAULT_SEED = 2020  # of torch-fidelity
INFINITY_POINTS = 15


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


def kernel_distance(features: Tensor, reference_features: Tensor) -> float:
    """KID, unbiased: the mean over 100 subsets of 1,000 of both, as published.

    Where either set is smaller, subsets have its size; every subset is unbiased, whatever its
    size. They are those that torch-fidelity draws, the same ones for two models measured at the
    same n. features: (n, f) and (N, f), at least two of each.
    """
    # torch-fidelity's own function cubes with NumPy's power, which takes minutes below zero.
    x, y = features.double().cpu(), reference_features.double().cpu()
    size = min(KID_SUBSET, len(x), len(y))
    generator = np.random.RandomState(DEFAULT_SEED)
    distances = []
    for _ in range(KID_SUBSETS):
        rows = (generator.choice(len(t), size, replace=False) for t in (x, y))
        a, b = (t[torch.from_numpy(chosen)] for t, chosen in zip((x, y), rows, strict=True))
        within = sum(_kernel(t, t).fill_diagonal_(0).sum() for t in (a, b))
        distances.append(within / (size * (size - 1)) - 2 * _kernel(a, b).mean())
    return float(torch.stack(distances).mean())


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """(xᵀy/f + 1)³ of all pairs, (n, N)."""
    t = (x @ y.T).div_(x.shape[1]).add_(1)
    return t.square().mul_(t)


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
