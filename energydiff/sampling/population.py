"""A population of weighted samples: how many it is worth, and how it is resampled.

Weights are kept as logarithms in float64, (G, P) for G populations of P particles.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from energydiff.numerals import number
from energydiff.sampling.diagnosis import Diagnosis
from energydiff.sampling.trace import Trace


@dataclass(frozen=True)
class Resampled:
    """What a step did to the populations, told sample by sample.

    Attributes:
        parents: row of the batch that each sample came from, (B,); its own where none was replaced.
        ess: effective sample size of the sample's population before it was resampled, (B,).
        log_normalizer: estimate of log ∫ exp(−E(x, σ)) dx by its population, (B,).
        particles: P, samples in a population.
    """

    parents: Tensor
    ess: Tensor
    log_normalizer: Tensor
    particles: int


@dataclass(frozen=True)
class Weights:
    """Log weights (G, P) since the last resampling, and the log normalisers until then, (G,)."""

    log: Tensor
    settled: Tensor

    def times(self, gain: Tensor) -> "Weights":
        """Multiplied by exp(gain), (G, P); what is not a number becomes 0."""
        log = (self.log + gain).nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)
        return Weights(log, self.settled)

    @property
    def ess(self) -> Tensor:
        """Effective sample size (Σw)²/Σw², from 1 to P (Kong et al. 1994); (G,)."""
        return 1 / self.log.softmax(1).square().sum(1)

    @property
    def log_normalizer(self) -> Tensor:
        """log of the estimate of ∫ exp(−E), unbiased before the log; (G,)."""
        return self.settled + self.log.logsumexp(1) - math.log(self.log.shape[1])

    def resampled(self, uniform: Tensor, where: Tensor) -> tuple[Tensor, "Weights"]:
        """Systematic resampling (Carpenter et al. 1999) of some populations.

        Particle i is copied ⌊P w_i⌋ or ⌈P w_i⌉ times, in expectation P w_i.

        Args:
            uniform: one number in (0, 1) for each population, (G,).
            where: which are resampled, (G,) bool.

        Returns:
            Parents, row numbers of the batch (G·P,), and the weights after.
        """
        count = self.log.shape[1]
        places = torch.arange(count, device=self.log.device)
        shares = self.log.softmax(1).cumsum(1)
        drawn = torch.searchsorted(shares, (places + uniform.double()[:, None]) / count)
        own = torch.where(where[:, None], drawn.clamp(max=count - 1), places)
        first = count * torch.arange(len(own), device=own.device)
        weights = Weights(
            torch.where(where[:, None], 0.0, self.log),
            torch.where(where, self.log_normalizer, self.settled),
        )
        return (own + first[:, None]).flatten(), weights


@dataclass(frozen=True)
class PopulationReport(Diagnosis):
    """What the populations of a run came to; ``str`` says it in a sentence.

    Attributes:
        populations, particles: G and P.
        ess: lowest effective sample size of any population at any level.
        ess_sigma: the level where that was.
        distinct: fewest different particles that a last resampling left of a population.
        founders: fewest starting points that the samples of a population descend from.
        log_normalizer: estimate of log ∫ exp(−E(x, σ_min)) dx, by the mean over populations.
    """

    populations: int
    particles: int
    ess: float
    ess_sigma: float
    distinct: int
    founders: int
    log_normalizer: float

    def __str__(self) -> str:
        return (
            f"{self.populations:,} populations of {self.particles:,}: the effective sample size was"
            f" at least {number(self.ess)}, at σ = {number(self.ess_sigma)}; at least"
            f" {self.distinct:,} different samples are left in each, of {self.founders:,} starting"
            f" points or more; log ∫exp(−E) is estimated as {number(self.log_normalizer)}."
        )


def report_populations(trace: Trace, particles: int) -> PopulationReport:
    """Of a trace whose columns are whole populations of ``particles``, one after the other."""
    assert trace.ess is not None and trace.ancestor is not None
    assert trace.log_normalizer is not None
    step = int(trace.ess.amin(1).argmin())
    last = int((trace.sigma > trace.sigma[-1]).sum()) - 1
    estimates = trace.log_normalizer[-1, ::particles]
    return PopulationReport(
        populations=len(estimates),
        particles=particles,
        ess=float(trace.ess[step].min()),
        ess_sigma=float(trace.sigma[step + 1]),
        distinct=_fewest(trace.ancestor[last], particles),
        founders=_fewest(trace.ancestor[0], particles),
        log_normalizer=float(estimates.logsumexp(0) - math.log(len(estimates))),
    )


def _fewest(places: Tensor, particles: int) -> int:
    """Different places that are held in a population, where they are fewest."""
    return min(len(own.unique()) for own in places.split(particles))
