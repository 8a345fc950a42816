"""Unadjusted Langevin dynamics, annealed over a grid of noises (Song & Ermon 2019)."""

import math

from torch import Tensor

from energydiff.sampling.markov_chain import MarkovChain
from energydiff.sampling.run import Point, Run


class Langevin(MarkovChain):
    """x' = x − δ∇V + σ√(2δ) z, δ = ``step_size``: one evaluation per move.

    In E the step is δσ², Song and Ermon's α ∝ σ². Samples p_σ up to an error of order δ.
    """

    def step(self, run: Run, here: Point, sigma: float) -> Tensor:
        drift = here.x - self.step_size * here.residual
        return drift + here.sigma * math.sqrt(2 * self.step_size) * run.normal(here.x)
