"""Unadjusted Langevin dynamics, annealed over a grid of noises (Song & Ermon 2019)."""

import math

from energydiff.sampling.markov_chain import MarkovChain
from energydiff.sampling.run import Move, Point, Run


class Langevin(MarkovChain):
    """x' = x − δ∇V + σ√(2δ) z, δ = ``step_size``: one evaluation per move.

    In E the step is δσ², Song and Ermon's α ∝ σ². Samples p_σ up to an error of order δ.
    """

    name = "langevin"

    def step(self, run: Run, here: Point, sigma: float) -> Move:
        drift = here.x - self.step_size * here.residual
        noise = here.sigma * math.sqrt(2 * self.step_size) * run.normal(here.x)
        return Move(drift + noise, self.step_size)
