"""Markov chains that leave p_σ invariant, at fixed noise or down a grid (annealing)."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from energydiff.errors import UserError
from energydiff.sampling.grids import given_sigmas
from energydiff.sampling.run import Answer, Move, Point, Run
from energydiff.sampling.sampler import Sampler


class MarkovChain(Sampler):
    """``updates`` moves at each noise level. Moves are random, so V has rates and no claim.

    Args:
        sigmas: one noise level, or a falling grid.
        final_denoise: end with x ← D(x, σ_min).
        updates: moves at each level.
        step_size: of one move, in units that scale with σ; see the sampler.
    """

    stochastic = True

    def __init__(
        self,
        sigmas: float | Sequence[float] | Tensor,
        final_denoise: bool = False,
        *,
        updates: int = 10,
        step_size: float = 0.1,
    ) -> None:
        if updates < 1 or not step_size > 0:
            raise UserError(
                f"updates is {updates} and step_size {step_size}; both must be positive."
            )
        self.sigmas, self.final_denoise = level_grid(sigmas, updates), final_denoise
        self.step_size = step_size

    def eta(self, here: Point, sigma: float) -> float:
        return self.step_size


class Metropolis(MarkovChain):
    """Chains whose proposals are accepted or refused one sample at a time, from true energies.

    A refused proposal leaves the sample where it is and counts among the trace's ``fallbacks``.
    (Metropolis et al. 1953, Hastings 1970.) The model must be an energy.
    """

    def propose(self, run: Run, here: Point) -> tuple[Point, Tensor]:
        """A proposal at the same σ, and log [p(x') q(x|x') / p(x) q(x'|x)], (B,)."""
        raise NotImplementedError

    def advance(self, run: Run, here: Point, sigma: float) -> Move:
        run.model.require_energy()
        proposal, log_ratio = self.propose(run, here)
        taken = run.uniform(log_ratio).log() < log_ratio  # not where it is not finite
        answer = Answer(
            proposal.residual[taken], proposal.energy[taken], proposal.free_energy[taken]
        )
        there = here.replaced(taken, proposal.x[taken], answer)
        return Move(
            there.x,
            self.step_size,
            there.free_energy,
            there if sigma == here.sigma else None,
            (~taken).to(torch.int64),
        )

    def denoise(self, run: Run, here: Point) -> Move:
        none = torch.zeros(len(here.x), dtype=torch.int64, device=here.x.device)
        return replace(super().denoise(run, here), fallbacks=none)


def level_grid(sigmas: float | Sequence[float] | Tensor, moves: int) -> Tensor:
    """Every level of a grid, or one level, ``moves`` times, and the last once more."""
    if isinstance(sigmas, int | float):
        if not 0 < sigmas < float("inf"):
            raise UserError(f"sigma must be positive and finite, got {sigmas}.")
        levels = torch.tensor([sigmas], dtype=torch.float64)
    else:
        levels = given_sigmas(sigmas)
    return torch.cat([levels.repeat_interleave(moves), levels[-1:]])
