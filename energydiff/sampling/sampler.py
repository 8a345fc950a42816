"""What every sampler shares: the loop over the noise levels.

A sampler writes only ``step``, or ``advance`` if it decides per sample which step to take. The
loop asks the model once at each point of the trajectory (that gradient is both the step's and the
record's) and, when it records, for the energy once more after a move at unchanged noise.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from energydiff.energies.base import Denoiser, require_labels
from energydiff.errors import UserError
from energydiff.random import SAMPLING, keyed_normal
from energydiff.sampling.grids import given_sigmas
from energydiff.sampling.run import Move, Point, Run
from energydiff.sampling.trace import Claim, Claims, Recorder, Trace


@dataclass(frozen=True)
class SampleResult:
    """Samples, what was recorded, and what it cost.

    Attributes:
        samples: (B, \\*shape), in model coordinates (about [-1, 1]).
        trace: the record; ``None`` if switched off or if the model has no energy.
        nfe: calls of the denoiser (gradients of the energy), each for the batch or a part of it.
        energy_evaluations: calls of the energy alone, for the record or for a guard's decisions.
            For a plain sampler one per step, and without a final denoising one more at the end.
    """

    samples: Tensor
    trace: Trace | None
    nfe: int
    energy_evaluations: int


class Sampler:
    """Sampling down a grid of noise levels.

    Args:
        sigmas: noise grid, (steps + 1,), falling, all positive.
        final_denoise: end with x ← D(x, σ_min), one more step.
    """

    order: int | None = None  # of the error in the step size, for the probability-flow ODE
    evaluations: int = 1  # function evaluations per step, fallbacks apart
    descends: bool = False  # every step is covered by the descent theorem if the energy is exact
    stochastic: bool = False  # draws noise along the way

    def __init__(self, sigmas: Sequence[float] | Tensor, final_denoise: bool = False) -> None:
        self.sigmas, self.final_denoise = given_sigmas(sigmas), final_denoise

    def step(self, run: Run, here: Point, sigma: float) -> Tensor:
        """x at the next ``sigma``, like ``here.x``."""
        raise NotImplementedError

    def eta(self, here: Point, sigma: float) -> float:
        """η of the step from ``here`` to ``sigma``."""
        return 1 - sigma / here.sigma

    def advance(self, run: Run, here: Point, sigma: float) -> Move:
        """One step and what is known of its end."""
        return Move(self.step(run, here, sigma), self.eta(here, sigma))

    def denoise(self, run: Run, here: Point) -> Move:
        """The final x ← D(x, σ_min)."""
        return Move(here.x - here.residual, 1.0)

    def claims(self, model: Denoiser) -> Claims:
        """What kind of statement a certificate on this model would be."""
        exact: bool = getattr(model, "exact", False)
        convex: bool = getattr(model, "convex_denoiser", False)
        # ∂V/∂σ ≥ 0 at any x, wherever the sampler goes
        landscape: Claim = "proved" if exact else "observed"
        if self.stochastic:
            return Claims("stochastic", "stochastic", landscape)
        descent: Claim = "proved" if (exact or convex) and self.descends else "observed"
        constant = bool(self.sigmas[0] == self.sigmas[-1])  # no landscape part
        return Claims(descent if exact or constant else "observed", descent, landscape)

    @torch.no_grad()
    def __call__(
        self,
        model: Denoiser,
        x_init: Tensor | None = None,
        *,
        seeds: Iterable[int] | None = None,
        label: Tensor | None = None,
        trace: bool = True,
        on_step: Callable[[int, Point], None] | None = None,
    ) -> SampleResult:
        """Sample a batch.

        Args:
            model: any denoiser; an energy is also recorded.
            x_init: starting points at σ_max, (B, \\*shape); or
            seeds: one integer per sample, from which its starting noise is drawn, and all noise of
                a stochastic sampler, which needs them beside ``x_init`` too. The same seed gives
                the same sample whatever batch it is in.
            label: class labels (B,), −1 for unknown.
            trace: record the Lyapunov function, if the model has an energy.
            on_step: called with (points done, point) at each point of the trajectory.
        """
        seeds = None if seeds is None else list(seeds)
        if getattr(model, "noise_blind", False) and self.sigmas[0] != self.sigmas[-1]:
            raise UserError(
                f"{type(model).__name__} is one energy for all noise, and {type(self).__name__}"
                " goes down noise levels: use GradientDescent, Nesterov or Armijo."
            )
        x = self._start(model, x_init, seeds)
        require_labels(model, x, None if label is None else label.cpu())  # once: may wait
        recorder = Recorder() if trace and model.energy is not None else None
        run = Run(model, label, seeds if self.stochastic else None, recorder)
        levels = self.sigmas.tolist()
        here = run.point(x, levels[0])
        for index, (_, lower) in enumerate(pairwise(levels)):
            if on_step is not None:
                on_step(index, here)
            here = run.follow(here, self.advance(run, here, lower), lower)
        if self.final_denoise:
            if on_step is not None:
                on_step(len(levels) - 1, here)
            here = run.follow(here, self.denoise(run, here), here.sigma)
        record = run.trace(here, self.claims(model))
        return SampleResult(here.x, record, run.nfe, run.energy_evaluations)

    def _start(self, model: Denoiser, x_init: Tensor | None, seeds: list[int] | None) -> Tensor:
        if self.stochastic and seeds is None:
            raise UserError(
                f"{type(self).__name__} draws noise along the way: give it seeds, one per sample."
            )
        if (x_init is None) == (seeds is None) and not self.stochastic:
            raise UserError("give a sampler either x_init or seeds, and not both.")
        if x_init is None:
            assert seeds is not None
            like = next(iter(model.state_dict().values()), torch.empty(0))
            x_init = self.sigmas[0] * keyed_normal(0, seeds, model.shape, SAMPLING)
            dtype = like.dtype if like.is_floating_point() else torch.float32
            x_init = x_init.to(like.device, torch.promote_types(dtype, torch.float32))
        if tuple(x_init.shape[1:]) != tuple(model.shape):
            raise UserError(
                f"x_init has shape {tuple(x_init.shape)}; this model takes (B, *{model.shape})."
            )
        if seeds is not None and len(seeds) != len(x_init):
            raise UserError(
                f"x_init holds {len(x_init)} samples, but there are {len(seeds)} seeds."
            )
        return x_init
