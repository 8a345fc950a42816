"""Markov chains that leave p_σ invariant, at fixed noise or down a grid (annealing)."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from energydiff.errors import UserError
from energydiff.sampling.chains import LEAST, ChainReport, report_chains
from energydiff.sampling.grids import level_grid
from energydiff.sampling.run import Move, Point, Run
from energydiff.sampling.sampler import Sampler
from energydiff.sampling.trace import Trace


class MarkovChain(Sampler):
    """``updates`` moves at each noise level. Moves are random, so V has rates and no claim.

    Args:
        sigmas: one noise level, or a falling grid.
        final_denoise: end with x ← D(x, σ_min).
        updates: moves at each level.
        step_size: of one move, in units that scale with σ; see the sampler.
    """

    stochastic = True
    repeats = True

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
        super().__init__(level_grid(sigmas, updates), final_denoise)
        self.step_size = step_size

    def diagnose(self, trace: Trace) -> ChainReport | None:
        """By E and ‖x‖ at the lowest noise, all moves there but a final denoising; None if few."""
        assert trace.x_norm is not None
        points = len(trace.sigma) - self.final_denoise
        first = int((trace.sigma > trace.sigma[-1]).sum())
        statistics = {"E": trace.energy[first:points], "‖x‖": trace.x_norm[first:points]}
        return report_chains(statistics) if points - first >= LEAST else None


class Metropolis(MarkovChain):
    """Chains whose proposals are accepted or refused one sample at a time.

    A refused proposal leaves the sample where it is and counts among the trace's ``fallbacks``.
    (Metropolis et al. 1953, Hastings 1970.) The model must be an energy, but for MALA on a line.
    """

    needs_energy = True

    @abstractmethod
    def propose(self, run: Run, here: Point) -> tuple[Point, Tensor]:
        """A proposal at the same σ, and log [p(x') q(x|x') / p(x) q(x'|x)], (B,)."""

    def step(self, run: Run, here: Point, sigma: float) -> Move:
        proposal, log_ratio = self.propose(run, here)
        taken = run.uniform(log_ratio).log() < log_ratio  # not where it is not finite
        there = here.unless(taken, proposal)
        return Move(
            there.x,
            self.step_size,
            there.answer.free_energy,
            there.answer if sigma == here.sigma else None,
            (~taken).to(torch.int64),
        )

    def denoise(self, run: Run, here: Point) -> Move:
        none = torch.zeros(len(here.x), dtype=torch.int64, device=here.x.device)
        return replace(super().denoise(run, here), fallbacks=none)
