"""When a training generalises and when it begins to memorise (Bonnaire et al. 2025)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from energydiff.errors import UserError

Series = Sequence[tuple[float, float]]

BEGUN = 0.1  # share of copies at which memorising has begun
LEARNED = 1.05  # times the least held-out loss


@dataclass(frozen=True)
class Growth:
    """τ against K.

    Attributes:
        rate: τ/K of the proportional fit τ = rate · K, by least squares of log τ.
        r2: of log τ about that line: 1 − Σ(log τ − log rate K)²/Σ(log τ − mean)².
        exponent: of the free fit τ ∝ K^exponent.
        exponent_r2: of that fit.
    """

    rate: float
    r2: float
    exponent: float
    exponent_r2: float


def memorising_time(memorised: Series, share: float = BEGUN) -> float:
    """Images seen when the memorised share first reaches ``share``, NaN if it never does.

    Between two looks it is taken to grow linearly in the logarithm of images.
    """
    before = (0.0, 0.0)
    for images, value in memorised:
        if value >= share:
            if before[0] <= 0 or value == before[1]:
                return images
            part = (share - before[1]) / (value - before[1])
            return math.exp((1 - part) * math.log(before[0]) + part * math.log(images))
        before = (images, value)
    return math.nan


def generalising_time(held_out_loss: Series, factor: float = LEARNED) -> float:
    """Images seen when the held-out loss is first within 5 % of the least it comes to."""
    if not held_out_loss:
        return math.nan
    least = min(loss for _, loss in held_out_loss)
    return next(images for images, loss in held_out_loss if loss <= factor * least)


def growth(sizes: Sequence[float], times: Sequence[float]) -> Growth:
    """How τ grows with K; sizes whose τ is not finite are left out.

    Raises:
        UserError: fewer than three times are left, or of one size alone.
    """
    pairs = [(k, t) for k, t in zip(sizes, times, strict=True) if math.isfinite(t) and t > 0]
    if len(pairs) < 3 or len({k for k, _ in pairs}) < 2:
        raise UserError(
            f"a fit of times against sizes needs three times of two sizes or more, got"
            f" {len(pairs)}: train longer, or on fewer images."
        )
    log_k, log_t = np.log(np.array(pairs, float)).T
    spread = float(np.square(log_t - log_t.mean()).sum())
    offset = float((log_t - log_k).mean())
    exponent, constant = np.polyfit(log_k, log_t, 1)

    def r2(predicted: np.ndarray) -> float:  # type: ignore[type-arg]
        return 1 - float(np.square(log_t - predicted).sum()) / spread if spread else math.nan

    return Growth(
        math.exp(offset),
        r2(log_k + offset),
        float(exponent),
        r2(exponent * log_k + constant),
    )
