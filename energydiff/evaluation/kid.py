"""KID: MMD² with the kernel (xᵀy/f + 1)³ (Bińkowski et al. 2018), alone and as a difference.

Sample i of A and sample i of B start from the same noise, so much of what varies from one set of
samples to the next cancels in A − B; the bootstrap of the difference draws them together.
"""

import numpy as np
import torch
from torch import Tensor

from energydiff.errors import UserError
from energydiff.evaluation.records import Interval

SUBSETS, SUBSET = 100, 1000
DEFAULT_SEED = 2020  # of torch-fidelity


def kernel_distance(features: Tensor, reference_features: Tensor) -> float:
    """KID, unbiased: the mean over 100 subsets of 1,000 of both, as published.

    Where either set is smaller, subsets have its size; every subset is unbiased, whatever its
    size. They are those that torch-fidelity draws, the same ones for two models measured at the
    same n. features: (n, f) and (N, f), at least two of each.
    """
    # torch-fidelity's own function cubes with NumPy's power, which takes minutes below zero.
    x, y = features.double().cpu(), reference_features.double().cpu()
    size = min(SUBSET, len(x), len(y))
    generator = np.random.RandomState(DEFAULT_SEED)
    distances = []
    for _ in range(SUBSETS):
        rows = (generator.choice(len(t), size, replace=False) for t in (x, y))
        a, b = (t[torch.from_numpy(chosen)] for t, chosen in zip((x, y), rows, strict=True))
        within = sum(_kernel(t, t).fill_diagonal_(0).sum() for t in (a, b))
        distances.append(within / (size * (size - 1)) - 2 * _kernel(a, b).mean())
    return float(torch.stack(distances).mean())


def kid_difference(
    a: Tensor, b: Tensor, reference: Tensor, *, resamples: int = 200, seed: int = 0
) -> Interval:
    """KID of A minus KID of B with a paired bootstrap interval (Bińkowski et al. 2018, §4).

    Row i of ``a`` (n, f) and of ``b`` (n, f) came from the same noise and is drawn together, and
    both meet the same draw of the ``reference`` (m, f). A pair of one row with itself is left out,
    as in the unbiased estimate. Kernels are float32, their sums float64.

    Args:
        resamples: bootstrap draws; the interval is their 2.5 % to 97.5 % quantiles, centred on the
            estimate.
    """
    if a.shape != b.shape:
        raise UserError(f"paired features need one shape, got {tuple(a.shape)}, {tuple(b.shape)}.")
    a, b, reference = a.float(), b.float(), reference.float()
    generator = np.random.default_rng(seed)
    ours = _weights(generator, len(a), resamples)
    theirs = _weights(generator, len(reference), resamples)
    difference = (_within(a, ours) - _within(b, ours)) - 2 * (
        _across(a, reference, ours, theirs) - _across(b, reference, ours, theirs)
    )
    estimate, draws = difference[0], difference[1:]
    low, high = (draws - draws.mean()).quantile(torch.tensor([0.025, 0.975], dtype=draws.dtype))
    return Interval(float(estimate), float(estimate + low), float(estimate + high))


def _weights(generator: np.random.Generator, count: int, resamples: int) -> Tensor:
    """How often each row is drawn, (resamples + 1, count); in the first, every row once."""
    draws = generator.multinomial(count, np.full(count, 1 / count), size=resamples)
    return torch.from_numpy(np.vstack([np.ones(count), draws])).float()


def _within(x: Tensor, weights: Tensor) -> Tensor:
    """Mean kernel over pairs of different rows, for each row of weights, float64."""
    total = torch.zeros(len(weights), dtype=torch.float64)
    for rows in torch.arange(len(x)).split(1024):
        kernel = _kernel(x[rows], x)
        kernel[torch.arange(len(rows)), rows] = 0
        total += ((weights[:, rows] @ kernel) * weights).sum(1, dtype=torch.float64)
    counts = weights.double()
    return total / (counts.sum(1).square() - counts.square().sum(1))


def _across(x: Tensor, y: Tensor, of_x: Tensor, of_y: Tensor) -> Tensor:
    """Mean kernel between rows of x and rows of y, for each row of weights, float64."""
    total = torch.zeros(len(of_x), dtype=torch.float64)
    for rows in torch.arange(len(x)).split(1024):
        total += ((of_x[:, rows] @ _kernel(x[rows], y)) * of_y).sum(1, dtype=torch.float64)
    return total / (of_x.double().sum(1) * of_y.double().sum(1))


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """(xᵀy/f + 1)³ of all pairs, (n, N)."""
    t = (x @ y.T).div_(x.shape[1]).add_(1)
    return t.square().mul_(t)
