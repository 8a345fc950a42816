"""Gradient descent on an energy at fixed noise, for noise-blind energies E(x) above all.

Everything is said in ∇V = σ²∇E, V's own gradient. A noise-blind energy ignores σ, and at σ = 1,
the default, ∇V is ∇E.
"""

from dataclasses import replace

import torch
from torch import Tensor

from energydiff.energies.base import Energy
from energydiff.errors import UserError
from energydiff.sampling.grids import level_grid
from energydiff.sampling.run import Move, Point, Run
from energydiff.sampling.sampler import Sampler


class GradientDescent(Sampler):
    """x' = x − η∇V, each sample until its own ‖∇V‖ is within the tolerance.

    One evaluation per step, of the samples that still move; a sample at rest is copied. For an
    exact energy V falls at every step if η ≤ 2; in general, if η ≤ 2/λ_max(∇²V).

    Args:
        steps: at most.
        step_size: η.
        tolerance: ‖∇V‖ at which a sample rests, units of x; ``resting_norm`` finds one.
        sigma: the noise at which an energy that knows it is descended.
    """

    name = "gradient_descent"
    needs_energy = True
    repeats = True

    def __init__(
        self,
        steps: int = 100,
        step_size: float = 0.1,
        tolerance: float = 1e-3,
        sigma: float = 1.0,
    ) -> None:
        if steps < 1 or not step_size > 0 or not tolerance >= 0:
            raise UserError(
                f"steps is {steps}, step_size {step_size} and tolerance {tolerance}; steps and"
                " step_size must be positive and the tolerance not negative."
            )
        super().__init__(level_grid(sigma, steps))
        self.step_size, self.tolerance = step_size, tolerance
        self.descends = step_size <= 2

    def step(self, run: Run, here: Point, sigma: float) -> Move:
        rows = (here.residual.flatten(1).norm(dim=1) > self.tolerance).nonzero()[:, 0]
        move = self.move(run, here, rows)
        if not len(rows):
            return replace(move, answer=here.answer)
        x = move.x[rows]
        there = here.replaced(rows, x, run.evaluate(x, sigma, rows))
        return replace(move, answer=there.answer)

    def move(self, run: Run, here: Point, rows: Tensor) -> Move:
        """One step of the samples ``rows`` (indices); the others stay."""
        step = torch.zeros_like(here.energy)
        step[rows] = self.step_size
        x = here.x.clone()
        x[rows] -= self.step_size * here.residual[rows]
        return Move(x, step)


@torch.no_grad()
def resting_norm(
    energy: Energy, held_out: Tensor, *, quantile: float = 0.5, sigma: float = 1.0
) -> float:
    """A tolerance for descent: a quantile of ‖∇V‖ over held-out data, units of x.

    A sample that descends until its gradient is as short as that of real data stops where the
    energy has no more to say about it. Nothing of the samples themselves enters the choice.

    Args:
        held_out: clean data that the energy was not trained on, (N, \\*shape).
        quantile: 0.5 is the median.
    """
    if not 0 <= quantile <= 1:
        raise UserError(f"quantile is {quantile}; it lies in [0, 1].")
    norms = [
        sigma**2 * energy.value_and_grad(part, sigma)[1].flatten(1).norm(dim=1)
        for part in held_out.split(256)
    ]
    return float(torch.cat(norms).double().quantile(quantile))
