"""Gradient descent with Armijo's backtracking (Nocedal & Wright 2006, §3.1)."""

from torch import Tensor

from energydiff.energies.base import Denoiser
from energydiff.sampling.gradient_descent import GradientDescent
from energydiff.sampling.guard import checked_share, guarded
from energydiff.sampling.run import Move, Point, Run
from energydiff.sampling.trace import Claims


class Armijo(GradientDescent):
    """η is halved, sample by sample, until V falls by a share c of η(1 − η/2)‖∇V‖².

    Beyond η = 1 the condition is V(x') ≤ V(x) − ½cη‖∇V‖². One function evaluation per step, and
    one energy evaluation per trial. Every step is ``enforced`` to descend, on any energy.

    Args:
        step_size: the η that every step starts from.
        c: the share, in (0, 1].
    """

    name = "armijo"

    def __init__(
        self,
        steps: int = 100,
        step_size: float = 1.0,
        tolerance: float = 1e-3,
        sigma: float = 1.0,
        *,
        c: float = 0.1,
    ) -> None:
        super().__init__(steps, step_size, tolerance, sigma)
        self.c = checked_share(c)

    def claims(self, model: Denoiser) -> Claims:
        return super().claims(model)._replace(total="enforced", descent="enforced")

    def move(self, run: Run, here: Point, rows: Tensor) -> Move:
        return guarded(run, here, super().move(run, here, rows), self.c, rows=rows)
