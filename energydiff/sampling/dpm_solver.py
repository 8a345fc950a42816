"""DPM-Solver++(2M) on the probability-flow ODE (Lu et al. 2022, algorithm 2)."""

import math

from torch import Tensor

from energydiff.sampling.run import Point, Run
from energydiff.sampling.sampler import Sampler


class DPMSolver2M(Sampler):
    """Two-step exponential integrator in t = −log σ: one evaluation per step, order 2.

    x' = (σ'/σ) x + (1 − e^{−h}) [D + (h/2h₋)(D − D₋)], h = log σ/σ', with D₋ and h₋ of the step
    before; the first step is Euler's. No theorem covers its descent part.
    """

    name = "dpm_solver_2m"
    order = 2

    def step(self, run: Run, here: Point, sigma: float) -> Tensor:
        ratio = sigma / here.sigma
        denoised = here.x - here.residual
        before, run.carry = run.carry, here
        if before is not None:
            h, h_before = -math.log(ratio), math.log(before.sigma / here.sigma)
            change = denoised - (before.x - before.residual)
            denoised = denoised + 0.5 * h / h_before * change
        return ratio * here.x + (1 - ratio) * denoised
