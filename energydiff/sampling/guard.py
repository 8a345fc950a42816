"""A guard around a sampler: a step is taken only if V falls enough, sample by sample.

To within half the rounding that a certificate allows, a guard checks

1. the descent part, at the noise σ the step starts from, falls by a share c of what theory grants
   an exact energy: V(x', σ) ≤ V(x, σ) − c η(1 − η/2)‖∇V(x, σ)‖². If not, the proposal is refused
   and an Euler step of the same η tried (for Euler itself half of it), then half, … This always
   succeeds in the end, if need be by staying where it is;
2. if asked to, the total: V(x', σ') ≤ V(x, σ). If the lower noise lifted V, which a wrong gauge
   can do and an exact energy cannot, x' is moved down ∇V(·, σ') until that has made up for it, by
   the shortest step that should or else by full denoisings, η = 1, as long as 1. stays true. Where
   they lead to no such point the sample is left alone, and the rise recorded as the rise it is:
   with a gauge that lifts V(·, σ') above V(x, σ) everywhere, no sampler that goes on to σ' can
   avoid it. Shorter steps in σ would not help, for both parts shrink alike.

So the descent part is enforced without condition, for any energy. The total is enforced for exact
energies, whose landscape part is ≤ 0 by theory, and with 2. at every step but those at which a
certificate counts a rise; else it is observed. 2. is not the default because it moves samples off
the flow for the sake of what may be the gauge's fault: the cure is a better gauge.

Armijo's condition with backtracking: Nocedal & Wright 2006, §3.1.
"""

import torch
from torch import Tensor

from energydiff.energies.base import Denoiser, like, per_sample
from energydiff.errors import UserError
from energydiff.sampling.backtracking import backtrack
from energydiff.sampling.certificate import allowance
from energydiff.sampling.run import Move, Point, Run
from energydiff.sampling.sampler import Sampler
from energydiff.sampling.trace import Claims

REPAIRS = 10  # moves down ∇V(·, σ') at most, to make up for a rise with the noise


class Guarded(Sampler):
    """Checks the steps of a deterministic sampler; the model must be an energy.

    Its name is ``guarded_`` and the sampler's. One energy evaluation more per step, which a record
    would need anyway.

    Args:
        sampler: any that draws no noise: Euler falls back to shorter steps, Heun, DPM-Solver++(2M)
            and one's own to Euler first.
        c: share of the theoretical descent that is asked for, in (0, 1].
        total: also 2., one function and one energy evaluation per move to make up for a rise.
    """

    needs_energy = True
    repeats = True  # as its sampler may

    def __init__(self, sampler: Sampler, *, c: float = 0.1, total: bool = False) -> None:
        if sampler.stochastic:
            raise UserError(
                f"{sampler.name} cannot be guarded: its noise raises V, as it should; a guard takes"
                " a sampler that draws none."
            )
        super().__init__(sampler.sigmas, sampler.final_denoise)
        self.sampler, self.c, self.total = sampler, checked_share(c), total
        self.name = f"guarded_{sampler.name}"
        self.order, self.evaluations = sampler.order, sampler.evaluations

    def claims(self, model: Denoiser) -> Claims:
        landscape = self.sampler.claims(model).landscape
        kept = self.total or self.stays or landscape == "proved"
        return Claims("enforced" if kept else "observed", "enforced", landscape)

    def step(self, run: Run, here: Point, sigma: float) -> Move:
        retry = 0.5 if self.sampler.descends else 1.0
        move = guarded(run, here, self.sampler.advance(run, here, sigma), self.c, retry=retry)
        return self._repair(run, here, move, sigma) if self.total else move

    def denoise(self, run: Run, here: Point) -> Move:
        return guarded(run, here, self.sampler.denoise(run, here), self.c)

    def _repair(self, run: Run, here: Point, move: Move, sigma: float) -> Move:
        """Condition 2: where V(x', σ') is above V(x, σ), x' further down."""
        assert move.free_energy is not None and move.fallbacks is not None
        highest = here.free_energy + allowance(here)
        allowed = _required(here, move.step_size, self.c)
        proposed = there = Point(run, move.x, sigma, move.answer)
        before, tries = move.free_energy.clone(), move.fallbacks.clone()
        shorten = torch.ones_like(before)
        for left in range(REPAIRS, 0, -1):
            # A full denoising brings about ½‖∇V‖², and the next one seldom more.
            rise, most = there.free_energy - here.free_energy, 0.5 * _squared_norm(there.residual)
            rows = ((there.free_energy > highest) & (rise <= left * most)).nonzero()[:, 0]
            if not len(rows):
                break
            x, value, residual = there.x[rows], there.free_energy[rows], there.residual[rows]
            # The η ≤ 1 with η(1 − η/2)‖∇V‖² = the rise, or 1.
            step = shorten[rows] * (1 - (1 - rise[rows] / most[rows]).clamp(min=0).sqrt())
            trial = x - per_sample(step, x) * residual
            answer = run.evaluate(trial, sigma, rows)
            value_before = run.free_energy(trial, here.sigma, rows)
            assert answer.free_energy is not None
            good = (answer.free_energy < value) & (value_before <= allowed[rows])
            there = there.replaced(rows[good], trial[good], answer.of(good))
            before[rows[good]] = value_before[good]
            shorten[rows[~good]] /= 2
            tries[rows] += 1
        kept = there.free_energy <= highest
        there = proposed.unless(kept, there)
        before = torch.where(kept, before, move.free_energy)
        return Move(there.x, move.step_size, before, there.answer, tries)


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
    answer = None if taken.refused.any() else move.answer  # of the proposal
    return Move(taken.x, taken.step, taken.value, answer, taken.refused)


def checked_share(c: float) -> float:
    """``UserError`` unless 0 < c ≤ 1."""
    if not 0 < c <= 1:
        raise UserError(f"c is {c}; the share of the descent asked for lies in (0, 1].")
    return c


def _required(here: Point, step: float | Tensor, c: float) -> Tensor:
    """The highest V that a step of η may lead to, (B,); Armijo's own ½η‖∇V‖² for η beyond 1."""
    step = like(step, here.free_energy)
    share = step * (1 - step / 2).clamp(min=0.5)
    return here.free_energy - c * share * _squared_norm(here.residual) + allowance(here)


def _squared_norm(residual: Tensor) -> Tensor:
    return residual.flatten(1).square().sum(1)
