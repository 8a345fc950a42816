"""Are chains long enough? Rank-normalised split R̂ and effective sample size (Vehtari et al. 2021).

Draws are (n, m, …): n in turn from each of m chains, of as many scalar statistics as there are
further numbers. Chains are split in halves, so that one chain can disagree with itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from energydiff.errors import UserError
from energydiff.numerals import number
from energydiff.sampling.diagnosis import Diagnosis

LEAST = 4  # draws of a chain, two in each half
MIXED = 1.01  # what the paper asks R̂ to be below


def split_rhat(draws: Tensor) -> Tensor:
    """R̂, the larger of that of ranks and of ranks of distances to the median, (…): 1 if mixed.

    Raises:
        UserError: fewer than four draws.
    """
    halves = _halves(draws)
    folded = (halves - halves.flatten(0, 1).quantile(0.5, dim=0)).abs()
    return torch.maximum(_rhat(_normal_scores(halves)), _rhat(_normal_scores(folded)))


def effective_sample_size(draws: Tensor) -> Tensor:
    """How many independent draws the n·m are worth for the bulk of a statistic, (…).

    The sum of autocorrelations ends where pairs of them stop being positive (Geyer 1992).

    Raises:
        UserError: fewer than four draws.
    """
    z = _normal_scores(_halves(draws))
    n, total = z.shape[0], z.shape[0] * z.shape[1]
    within, between = z.var(0).mean(0), n * z.mean(0).var(0)
    covariance = _autocovariance(z).mean(1)
    pooled = (n - 1) / n * within + between / n
    correlation = 1 - (within - covariance * n / (n - 1)) / pooled
    correlation[0] = 1
    pairs = correlation[: n - n % 2].unflatten(0, (-1, 2)).sum(1)
    positive = (pairs > 0).cumprod(0)
    falling = (pairs * positive).cummin(0).values * positive
    time = (2 * falling.sum(0) - 1).clamp(min=1 / torch.tensor(float(total)).log10())
    return torch.where(pooled > 0, total / time, float(total))


@dataclass(frozen=True)
class ChainReport(Diagnosis):
    """How well chains agree, by the statistic for which they do least; ``str`` says it.

    Attributes:
        chains, draws: m and n.
        rhat: largest R̂ of any statistic, and ``rhat_of`` its name.
        ess: smallest effective sample size of any, of ``draws`` times ``chains``, and ``ess_of``.
    """

    chains: int
    draws: int
    rhat: float
    rhat_of: str
    ess: float
    ess_of: str

    def __str__(self) -> str:
        verdict = "agree" if self.rhat < MIXED else "do not agree yet"
        return (
            f"{self.chains:,} chains of {self.draws:,} draws {verdict}: R̂ is at most"
            f" {number(self.rhat, 4)} ({self.rhat_of}; below {MIXED} they agree), and the effective"
            f" sample size at least {number(self.ess)} of {self.chains * self.draws:,}"
            f" ({self.ess_of})."
        )


def report_chains(statistics: Mapping[str, Tensor]) -> ChainReport:
    """Of scalar statistics by name, each (n, m), or (n, m, …) for several of one name.

    Raises:
        UserError: fewer than four draws.
    """
    rhats = {name: float(split_rhat(draws).max()) for name, draws in statistics.items()}
    sizes = {name: float(effective_sample_size(draws).min()) for name, draws in statistics.items()}
    worst, least = max(rhats, key=rhats.__getitem__), min(sizes, key=sizes.__getitem__)
    count, chains = next(iter(statistics.values())).shape[:2]
    return ChainReport(chains, count, rhats[worst], worst, sizes[least], least)


def _halves(draws: Tensor) -> Tensor:
    """(n, m, …) as (n // 2, 2m, …) in float64, without the middle draw of an odd number."""
    if draws.ndim < 2 or len(draws) < LEAST:
        raise UserError(
            f"chains are judged by {LEAST} draws or more of each, (draws, chains), got"
            f" {tuple(draws.shape)}."
        )
    half = len(draws) // 2
    return torch.cat([draws[:half], draws[-half:]], dim=1).double()


def _normal_scores(draws: Tensor) -> Tensor:
    """Ranks among all draws, ties at their mean, as quantiles of a standard normal."""
    flat = draws.flatten(0, 1)
    values = flat.movedim(0, -1).contiguous()
    ordered = values.sort(dim=-1).values
    low = torch.searchsorted(ordered, values)
    rank = 0.5 * (low + torch.searchsorted(ordered, values, right=True) + 1)
    scores = torch.special.ndtri((rank - 0.375) / (len(flat) + 0.25))
    return scores.movedim(-1, 0).view_as(draws)


def _rhat(z: Tensor) -> Tensor:
    n = len(z)
    within, between = z.var(0).mean(0), n * z.mean(0).var(0)
    found = ((n - 1) / n + between / (n * within)).sqrt()
    return torch.where(within + between > 0, found, 1.0)  # a constant


def _autocovariance(z: Tensor) -> Tensor:
    """At lags 0 to n − 1, like z, with the divisor n."""
    n = len(z)
    spectrum = torch.fft.rfft(z - z.mean(0), n=2 * n, dim=0).abs().square()
    return torch.fft.irfft(spectrum, n=2 * n, dim=0)[:n] / n
