"""Ancestral sampling: denoise a little too far, then add noise back."""

import math
from collections.abc import Sequence

from torch import Tensor

from energydiff.errors import UserError
from energydiff.sampling.run import Point, Run
from energydiff.sampling.sampler import Sampler


class Ancestral(Sampler):
    """Euler to σ_down, then noise of σ_up, σ_down² + σ_up² = σ'²: one evaluation per step, order 1.

    With ``noise`` = 1 a step draws from q(x' | x, x0 = D) (Ho et al. 2020 in these coordinates),
    with 0 it is DDIM: the η of Song et al. 2021a, eq. 16. Noise raises V: there is no claim.
    """

    name = "ancestral"
    order = 1
    stochastic = True

    def __init__(
        self, sigmas: Sequence[float] | Tensor, final_denoise: bool = False, *, noise: float = 1.0
    ) -> None:
        super().__init__(sigmas, final_denoise)
        if not 0 <= noise <= 1:
            raise UserError(f"noise is {noise}; the share of ancestral noise lies in [0, 1].")
        self.noise = noise

    def step(self, run: Run, here: Point, sigma: float) -> Tensor:
        up = self.noise * sigma * math.sqrt(1 - (sigma / here.sigma) ** 2)
        down = math.sqrt(sigma**2 - up**2)
        mean = here.x - (1 - down / here.sigma) * here.residual
        return mean + up * run.normal(here.x)
