"""The Metropolis-adjusted Langevin algorithm (Roberts & Tweedie 1996)."""

import math

from torch import Tensor

from energydiff.sampling.markov_chain import Metropolis
from energydiff.sampling.run import Point, Run


class MALA(Metropolis):
    """Langevin proposals x − δ∇V + σ√(2δ) z, δ = ``step_size``, accepted so that p_σ is exact.

    One evaluation per move: that at the proposal, which is the next point if it is accepted.
    """

    name = "mala"

    name = "mala"

    def propose(self, run: Run, here: Point) -> tuple[Point, Tensor]:
        noise = here.sigma * math.sqrt(2 * self.step_size) * run.normal(here.x)
        there = Point(run, here.x - self.step_size * here.residual + noise, here.sigma)
        back, forth = self._log_density(there, here), self._log_density(here, there)
        return there, here.energy - there.energy + back - forth

    def _log_density(self, start: Point, end: Point) -> Tensor:
        """log q(end | start) up to a constant, (B,)."""
        step = end.x - start.x + self.step_size * start.residual
        return -step.flatten(1).square().sum(1) / (4 * self.step_size * start.sigma**2)
