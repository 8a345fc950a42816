"""Nesterov's accelerated gradient with adaptive restart (O'Donoghue & Candès 2015)."""

import torch
from torch import Tensor

from energydiff.energies.base import per_sample
from energydiff.sampling.gradient_descent import GradientDescent
from energydiff.sampling.run import Move, Point, Run


class Nesterov(GradientDescent):
    """x_{k+1} = y_k − η∇V(y_k), y_{k+1} = x_{k+1} + β(x_{k+1} − x_k), restarted sample by sample.

    The trajectory is that of y, where the gradient is known. A sample loses its momentum (β = 0)
    when it moves uphill, ⟨∇V(y_k), x_{k+1} − x_k⟩ > 0. One evaluation per step. V need not fall at
    every step: that is observed.
    """

    name = "nesterov"

    def __init__(
        self,
        steps: int = 100,
        step_size: float = 0.1,
        tolerance: float = 1e-3,
        sigma: float = 1.0,
    ) -> None:
        super().__init__(steps, step_size, tolerance, sigma)
        self.descends = False

    def move(self, run: Run, here: Point, rows: Tensor) -> Move:
        plain = super().move(run, here, rows)
        if run.carry is None:
            run.carry = here.x, torch.ones_like(here.energy)
        before, time = run.carry
        gain = plain.x - before
        uphill = (here.residual * gain).flatten(1).sum(1) > 0
        time = torch.where(uphill, 1.0, time)
        later = 0.5 * (1 + (1 + 4 * time.square()).sqrt())
        run.carry = (plain.x, later)
        x = plain.x.clone()
        x[rows] += per_sample((time - 1) / later, gain)[rows] * gain[rows]
        return Move(x, plain.step_size)
