"""Heun's method on the probability-flow ODE (Karras et al. 2022, algorithm 1)."""

from torch import Tensor

from energydiff.sampling.run import Point, Run
from energydiff.sampling.sampler import Sampler


class Heun(Sampler):
    """Euler corrected by the slope at its end: two evaluations per step, order 2.

    No theorem covers its descent part, which can rise at large steps.
    """

    name = "heun"
    order = 2
    evaluations = 2

    def step(self, run: Run, here: Point, sigma: float) -> Tensor:
        # dx/dσ = (x − D)/σ
        slope = here.residual / here.sigma
        guess = here.x + (sigma - here.sigma) * slope
        corrected = 0.5 * (slope + run.evaluate(guess, sigma).residual / sigma)
        return here.x + (sigma - here.sigma) * corrected
