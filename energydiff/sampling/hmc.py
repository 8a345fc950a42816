"""Hamiltonian Monte Carlo (Duane et al. 1987; Neal 2011)."""

from collections.abc import Sequence

from torch import Tensor

from energydiff.errors import UserError
from energydiff.sampling.markov_chain import Metropolis
from energydiff.sampling.run import Point, Run


class HMC(Metropolis):
    """Leapfrog along H = E + ½‖p‖² with fresh p ~ N(0, I), accepted so that p_σ is exact.

    Args:
        leaps: leapfrog steps of one move, and its evaluations.
        step_size: of one leap, in units of σ.
    """

    name = "hmc"

    def __init__(
        self,
        sigmas: float | Sequence[float] | Tensor,
        final_denoise: bool = False,
        *,
        updates: int = 5,
        step_size: float = 0.5,
        leaps: int = 5,
    ) -> None:
        super().__init__(sigmas, final_denoise, updates=updates, step_size=step_size)
        if leaps < 1:
            raise UserError(f"leaps is {leaps}; a move needs at least one.")
        self.leaps = leaps
        self.evaluations = leaps

    def propose(self, run: Run, here: Point) -> tuple[Point, Tensor]:
        # Time is in units of σ, so that x moves by εσp and p by −ε∇V/σ = −εσ∇E.
        momentum = run.normal(here.x)
        start, there = _kinetic(momentum), here
        for _ in range(self.leaps):
            momentum = momentum - 0.5 * self.step_size * there.residual / here.sigma
            there = Point(run, there.x + self.step_size * here.sigma * momentum, here.sigma)
            momentum = momentum - 0.5 * self.step_size * there.residual / here.sigma
        return there, here.energy + start - there.energy - _kinetic(momentum)


def _kinetic(momentum: Tensor) -> Tensor:
    return 0.5 * momentum.flatten(1).square().sum(1)
