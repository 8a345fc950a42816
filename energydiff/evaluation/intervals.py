"""Intervals of a mean, as of differences between two models over blocks of seeds.

Fréchet distances are biased in n and their bootstrap is biased too; disjoint blocks of seeds of
equal size share the bias, and it cancels in A − B.
"""

import numpy as np
import scipy
from numpy.typing import ArrayLike

from energydiff.errors import UserError
from energydiff.evaluation.records import Interval

LEVEL = 0.95


def t_interval(values: ArrayLike) -> Interval:
    """Student's 95 % interval of the mean of independent values, two at least."""
    array = np.asarray(values, float)
    if array.size < 2:
        raise UserError(f"an interval needs two values or more, got {array.size}.")
    mean, error = float(array.mean()), float(scipy.stats.sem(array))
    reach = float(scipy.stats.t.ppf((1 + LEVEL) / 2, array.size - 1)) * error
    return Interval(mean, mean - reach, mean + reach)
