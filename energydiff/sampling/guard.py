"""Safeguarded samplers: a step is taken only if V falls enough, sample by sample.

To within half the rounding that a certificate allows, a guard checks

1. the descent part, at the noise σ the step starts from, falls by a share c of what theory grants
   an exact energy: V(x', σ) ≤ V(x, σ) − c η(1 − η/2)‖∇V(x, σ)‖². If not, the proposal is refused
   and an Euler step of the same η tried (for Euler itself half of it), then half, … This always
   succeeds in the end, if need be by staying where it is;
2. if asked to, the total: V(x', σ') ≤ V(x, σ). If the lower noise lifted V, which a wrong gauge
   can do and an exact energy cannot, x' is moved down ∇V(·, σ') by the shortest step that makes up
   for it, as long as 1. stays true. Where not even a full denoising would, η = 1, the sample is
   left alone: with a gauge that lifts V(·, σ') above V(x, σ) everywhere, no sampler that goes on
   to σ' can avoid the rise, and it is recorded as the rise it is.

So the descent part is enforced without condition, for any energy. The total is enforced for exact
energies, whose landscape part is ≤ 0 by theory, and with 2. wherever the certificate holds; else it
is observed. 2. is not the default because it moves samples off the flow for the sake of what may
be the gauge's fault: the cure is a better gauge.

Armijo's condition with backtracking: Nocedal & Wright 2006, §3.1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from energydiff.energies.base import Denoiser, per_sample
from energydiff.errors import UserError
from energydiff.sampling.backtracking import backtrack
from energydiff.sampling.certificate import rounding
from energydiff.sampling.euler import Euler
from energydiff.sampling.heun import Heun
from energydiff.sampling.run import Answer, Move, Point, Run
from energydiff.sampling.sampler import Sampler
from energydiff.sampling.trace import Claims

REPAIRS = 10  # moves down ∇V(·, σ') to make up for a rise with the noise


class Guard(Sampler):
    """Mixin: checks the steps of the sampler it stands before; the model must be an energy.

    Args:
        sigmas, final_denoise: as of any sampler.
        c: share of the theoretical descent that is asked for, in (0, 1].
        total: also 2., one function and one energy evaluation per move to make up for a rise.
    """

    def __init__(
        self,
        sigmas: Sequence[float] | Tensor,
        final_denoise: bool = False,
        *,
        c: float = 0.1,
        total: bool = False,
    ) -> None:
        super().__init__(sigmas, final_denoise)
        self.c, self.total = checked_share(c), total

    def claims(self, model: Denoiser) -> Claims:
        landscape = super().claims(model).landscape
        kept = self.total or landscape == "proved"
        return Claims("enforced" if kept else "observed", "enforced", landscape)

    def advance(self, run: Run, here: Point, sigma: float) -> Move:
        run.model.require_energy()
        move = super().advance(run, here, sigma)
        move = guarded(run, here, move, self.c, retry=0.5 if self.descends else 1.0)
        return self._repair(run, here, move, sigma) if self.total else move

    def denoise(self, run: Run, here: Point) -> Move:
        return guarded(run, here, super().denoise(run, here), self.c)

    def _repair(self, run: Run, here: Point, move: Move, sigma: float) -> Move:
        """Condition 2: where V(x', σ') is above V(x, σ), x' further down."""
        assert move.free_energy is not None and move.fallbacks is not None
        highest = here.free_energy + allowance(here)
        allowed = _required(here, move.step_size, self.c)
        there = run.point(move.x, sigma)
        before, tries = move.free_energy.clone(), move.fallbacks.clone()
        shorten = torch.ones_like(before)
        for _ in range(REPAIRS):
            rise, most = there.free_energy - here.free_energy, 0.5 * _squared_norm(there.residual)
            rows = ((there.free_energy > highest) & (rise <= most)).nonzero()[:, 0]
            if not len(rows):
                break
            x, value, residual = there.x[rows], there.free_energy[rows], there.residual[rows]
            # The η with η(1 − η/2)‖∇V‖² = the rise.
            step = shorten[rows] * (1 - (1 - rise[rows] / most[rows]).sqrt())
            trial = x - per_sample(step, x) * residual
            answer = run.evaluate(trial, sigma, rows)
            value_before = run.free_energy(trial, here.sigma, rows)
            assert answer.free_energy is not None and answer.energy is not None
            good = (answer.free_energy < value) & (value_before <= allowed[rows])
            taken = Answer(answer.residual[good], answer.energy[good], answer.free_energy[good])
            there = there.replaced(rows[good], trial[good], taken)
            before[rows[good]] = value_before[good]
            shorten[rows[~good]] /= 2
            tries[rows] += 1
        return Move(there.x, move.step_size, before, there, tries)


class GuardedEuler(Guard, Euler):
    """Euler's method (DDIM), guarded: one function and one energy evaluation per step."""


class GuardedHeun(Guard, Heun):
    """Heun's method, falling back to Euler: two function and one energy evaluation per step."""


def guarded(
    run: Run, here: Point, move: Move, c: float, *, rows: Tensor | None = None, retry: float = 0.5
) -> Move:
    """Condition 1 for a proposed move, its noise unchanged; at refusal steps down ∇V instead.

    Args:
        move: the proposal and its η.
        rows: indices of the samples that move at all; all by default.
        retry: the first step down ∇V in units of the proposal's η; every next one is half.
    """
    taken = backtrack(
        lambda x, rows: run.free_energy(x, here.sigma, rows),
        lambda step: _required(here, step, c),
        here.x,
        here.free_energy,
        here.residual,
        move.step_size,
        proposal=move.x,
        rows=rows,
        retry=retry,
    )
    return Move(taken.x, taken.step, taken.value, fallbacks=taken.refused)


def checked_share(c: float) -> float:
    """``UserError`` unless 0 < c ≤ 1."""
    if not 0 < c <= 1:
        raise UserError(f"c is {c}; the share of the descent asked for lies in (0, 1].")
    return c


def allowance(here: Point) -> Tensor:
    """Half of what a certificate forgives as rounding, (B,)."""
    slope = here.residual.flatten(1).norm(dim=1) * here.x.flatten(1).norm(dim=1)
    return 0.5 * rounding(here.free_energy, here.energy, here.sigma, slope)


def _required(here: Point, step: float | Tensor, c: float) -> Tensor:
    """The highest V that a step of η may lead to, (B,); Armijo's own ½η‖∇V‖² for η beyond 1."""
    step = torch.as_tensor(step, dtype=here.free_energy.dtype).to(here.free_energy)
    share = step * (1 - step / 2).clamp(min=0.5)
    return here.free_energy - c * share * _squared_norm(here.residual) + allowance(here)


def _squared_norm(residual: Tensor) -> Tensor:
    return residual.flatten(1).square().sum(1)
