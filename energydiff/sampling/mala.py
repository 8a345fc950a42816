"""The Metropolis-adjusted Langevin algorithm (Roberts & Tweedie 1996)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from energydiff.errors import UserError
from energydiff.sampling.markov_chain import Metropolis
from energydiff.sampling.run import Point, Run


class MALA(Metropolis):
    """Langevin proposals x − δ∇V + σ√(2δ) z, δ = ``step_size``, accepted so that p_σ is exact.

    One evaluation per move: that at the proposal, which is the next point if it is accepted.

    With ``line`` the fall of E is not asked of the model but integrated along the straight line
    from its gradient field, ∫ ⟨s(x + t(x' − x)), x' − x⟩ dt by the trapezoidal rule (Sjöberg et al.
    2026). That serves a model without an energy, at line − 2 evaluations more, though the integral
    depends on the way taken where the field is no gradient, so that no density is exact.

    Args:
        line: points of the line, the two ends counted, at least 2; 0 for the energy itself.
    """

    name = "mala"

    def __init__(
        self,
        sigmas: float | Sequence[float] | Tensor,
        final_denoise: bool = False,
        *,
        updates: int = 10,
        step_size: float = 0.1,
        line: int = 0,
    ) -> None:
        super().__init__(sigmas, final_denoise, updates=updates, step_size=step_size)
        if line < 0 or line == 1:
            raise UserError(f"line is {line}: give 2 points or more, or 0 to use the energy.")
        self.line, self.needs_energy = line, line == 0
        self.evaluations = 1 + max(0, line - 2)

    def propose(self, run: Run, here: Point) -> tuple[Point, Tensor]:
        noise = here.sigma * math.sqrt(2 * self.step_size) * run.normal(here.x)
        there = Point(run, here.x - self.step_size * here.residual + noise, here.sigma)
        fall = self._integral(run, here, there) if self.line else here.energy - there.energy
        back, forth = self._log_density(there, here), self._log_density(here, there)
        return there, fall + back - forth

    def _log_density(self, start: Point, end: Point) -> Tensor:
        """log q(end | start) up to a constant, (B,)."""
        step = end.x - start.x + self.step_size * start.residual
        return -step.flatten(1).square().sum(1) / (4 * self.step_size * start.sigma**2)

    def _integral(self, run: Run, here: Point, there: Point) -> Tensor:
        """∫⟨s, dx⟩ on the line from here to there, (B,); s = −∇V/σ²."""
        along = there.x - here.x
        shares = torch.linspace(0, 1, self.line).tolist()[1:-1]
        inner = [run.evaluate(here.x + t * along, here.sigma).residual for t in shares]
        fields = torch.stack([here.residual, *inner, there.residual])
        mean = torch.trapezoid(fields, dim=0) / (self.line - 1)
        return -(mean * along).flatten(1).sum(1) / here.sigma**2
