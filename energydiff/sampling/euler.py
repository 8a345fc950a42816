"""Euler's method on the probability-flow ODE, which is DDIM (Song et al. 2021a)."""

from torch import Tensor

from energydiff.sampling.run import Point, Run
from energydiff.sampling.sampler import Sampler


class Euler(Sampler):
    """x' = x − η∇V(x, σ) with η = 1 − σ'/σ: one evaluation per step, order 1.

    Each step is gradient descent on V at fixed noise, so with an exact energy both parts of the
    trace are ≤ 0 whatever the step size.
    """

    name = "euler"
    order = 1
    descends = True

    def step(self, run: Run, here: Point, sigma: float) -> Tensor:
        return here.x - (1 - sigma / here.sigma) * here.residual
