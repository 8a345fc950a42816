"""Intervals of a difference between two models that were given the same noise.

Sample i of A and sample i of B start from the same noise, so much of what varies from one set of
samples to the next cancels in A − B. Fréchet distances are biased in n and their bootstrap is
biased too; disjoint blocks of seeds of equal size share the bias, and it cancels as well.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import stats
from torch import Tensor

from energydiff.errors import UserError
from energydiff.evaluation.records import Interval

LEVEL = 0.95


def t_interval(values: ArrayLike) -> Interval:
    """Student's 95 % interval of the mean of independent values, two at least."""
    array = np.asarray(values, float)
    if array.size < 2:
        raise UserError(f"an interval needs two values or more, got {array.size}.")
    mean, error = float(array.mean()), float(stats.sem(array))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, array.size - 1)) * error
    return Interval(mean, mean - reach, mean + reach)


def kid_difference(
    a: Tensor, b: Tensor, reference: Tensor, *, resamples: int = 200, seed: int = 0
) -> Interval:
    """KID of A minus KID of B with a paired bootstrap interval (Bińkowski et al. 2018, §4).

    Row i of ``a`` (n, f) and of ``b`` (n, f) came from the same noise and is drawn together, and
    both meet the same draw of the ``reference`` (m, f). A pair of one row with itself is left out,
    as in the unbiased estimate.

    Args:
        resamples: bootstrap draws; the interval is their 2.5 % to 97.5 % quantiles, centred on the
            estimate.
    """
    if a.shape != b.shape:
        raise UserError(f"paired features need one shape, got {tuple(a.shape)}, {tuple(b.shape)}.")
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
    """KID's cubic kernel, float32; its sums are taken in float64."""
    return (x.float() @ y.float().T / x.shape[1] + 1) ** 3
