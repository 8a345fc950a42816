"""What every sampler shares: the loop over the noise grid, the record, the counts.

A sampler writes only ``step``. The loop evaluates the model once at each point of the trajectory
(that gradient is both the step's and the record's) and, when it records, the energy once more
after the move at unchanged noise.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from energydiff.energies.base import Denoiser, Energy, require_labels
from energydiff.errors import UserError
from energydiff.random import SAMPLING, keyed_normal
from energydiff.sampling.grids import given_sigmas
from energydiff.sampling.trace import Claim, Recorder, Trace


@dataclass(frozen=True)
class SampleResult:
    """Samples, what was recorded, and what it cost.

    Attributes:
        samples: (B, \\*shape), in model coordinates (about [-1, 1]).
        trace: the record; ``None`` if switched off or if the model has no energy.
        nfe: calls of the denoiser (gradients of the energy) per sample.
        energy_evaluations: energies evaluated for the record alone, per sample: one per step,
            and without a final denoising one more at the end.
    """

    samples: Tensor
    trace: Trace | None
    nfe: int
    energy_evaluations: int


@dataclass(frozen=True)
class Point:
    """A point of a trajectory with the model's answer there: ``residual`` = ∇V = x − D(x, σ)."""

    x: Tensor
    sigma: float
    residual: Tensor


class Sampler(ABC):
    """Deterministic sampling down a grid of noise levels.

    Args:
        sigmas: noise grid, (steps + 1,), falling, all positive.
        final_denoise: end with x ← D(x, σ_min), one more step.
    """

    order: int  # of the error in the step size, for the probability-flow ODE
    descends: bool = False  # every step is covered by the descent theorem if the energy is exact

    def __init__(self, sigmas: Sequence[float] | Tensor, final_denoise: bool = False) -> None:
        self.sigmas = given_sigmas(sigmas)
        self.final_denoise = final_denoise

    @abstractmethod
    def step(
        self, residual_at: Callable[[Tensor, float], Tensor], here: Point, sigma: float
    ) -> Tensor:
        """x at the next, lower ``sigma``. ``residual_at(x, σ)`` costs one function evaluation."""

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
            seeds: one integer per sample, from which its starting noise is drawn. The same seed
                gives the same sample whatever batch it is in.
            label: class labels (B,), −1 for unknown.
            trace: record the Lyapunov function, if the model has an energy.
            on_step: called with (points done, point) at each point of the trajectory.
        """
        x = self._start(model, x_init, seeds)
        require_labels(model, x, None if label is None else label.cpu())  # once: may wait
        run = _Run(model, label, Recorder() if trace and model.energy is not None else None)
        levels = self.sigmas.tolist()
        for index, (sigma, lower) in enumerate(pairwise(levels)):
            here = run.point(x, sigma)
            if on_step is not None:
                on_step(index, here)
            x = self.step(run.residual_at, here, lower)
            run.record_move(x, sigma, 1 - lower / sigma)
        if self.final_denoise:
            here = run.point(x, levels[-1])
            if on_step is not None:
                on_step(len(levels) - 1, here)
            x = here.x - here.residual
        return run.result(x, levels[-1], self.final_denoise, self._claim(model))

    def _start(self, model: Denoiser, x_init: Tensor | None, seeds: Iterable[int] | None) -> Tensor:
        if (x_init is None) == (seeds is None):
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
        return x_init

    def _claim(self, model: Denoiser) -> Claim:
        return "proved" if self.descends and getattr(model, "exact", False) else "observed"


class _Run:
    """The model's evaluations during one call, counted and recorded."""

    def __init__(self, model: Denoiser, label: Tensor | None, recorder: Recorder | None) -> None:
        self.model, self.label, self.recorder = model, label, recorder
        self.nfe = self.energy_evaluations = 0

    def residual_at(self, x: Tensor, sigma: float) -> Tensor:
        self.nfe += 1
        if self.model.energy is None:
            return x - self.model.denoise(x, sigma, self.label)
        return self._evaluate(self.model.energy, x, sigma)[2]

    def point(self, x: Tensor, sigma: float) -> Point:
        if self.recorder is None:
            return Point(x, sigma, self.residual_at(x, sigma))
        self.nfe += 1
        energy, free_energy, residual = self._evaluate(self.model.require_energy(), x, sigma)
        self.recorder.at(sigma, energy, free_energy, residual)
        return Point(x, sigma, residual)

    def record_move(self, x: Tensor, sigma: float, step_size: float) -> None:
        if self.recorder is not None:
            self.energy_evaluations += 1
            free_energy = self.model.require_energy().free_energy(x, sigma, self.label)
            self.recorder.moved(step_size, free_energy)

    def result(self, x: Tensor, sigma: float, denoised: bool, claim: Claim) -> SampleResult:
        """``denoised``: the move to x was the final denoising, at the same σ."""
        trace = None
        if self.recorder is not None:
            self.energy_evaluations += 1
            energy, free_energy, residual = self._evaluate(self.model.require_energy(), x, sigma)
            if denoised:
                self.recorder.moved(1.0, free_energy)
            self.recorder.at(sigma, energy, free_energy, residual)
            trace = self.recorder.trace(claim)
        return SampleResult(x, trace, self.nfe, self.energy_evaluations)

    def _evaluate(self, model: Energy, x: Tensor, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
        """E, V and ∇V at one point."""
        energy, grad = model.value_and_grad(x, sigma, self.label)
        return energy, model.energy_to_free_energy(energy, sigma), sigma**2 * grad
