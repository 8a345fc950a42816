"""Heun's method on the probability-flow ODE (Karras et al. 2022, algorithm 1)."""

from collections.abc import Callable

from torch import Tensor

from energydiff.sampling.sampler import Point, Sampler


class Heun(Sampler):
    """Euler corrected by the slope at its end: two evaluations per step, order 2.

    No theorem covers its descent part, which can rise at large steps.
    """

    order = 2

    def step(
        self, residual_at: Callable[[Tensor, float], Tensor], here: Point, sigma: float
    ) -> Tensor:
        # dx/dσ = (x − D)/σ
        slope = here.residual / here.sigma
        guess = here.x + (sigma - here.sigma) * slope
        corrected = 0.5 * (slope + residual_at(guess, sigma) / sigma)
        return here.x + (sigma - here.sigma) * corrected
