"""What every sampler shares: the loop over the noise levels.

A sampler writes only ``step``. The loop asks the model once at each point of the trajectory (that
gradient is both the step's and the record's) and, when it records, for the energy once more after a
move at unchanged noise.
"""

import warnings
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from energydiff.energies.base import Denoiser, require_labels
from energydiff.errors import UserError
from energydiff.random import SAMPLING, as_indices, keyed_normal
from energydiff.sampling.diagnosis import Diagnosis
from energydiff.sampling.grids import given_sigmas
from energydiff.sampling.path import Step, follow
from energydiff.sampling.run import Move, Point, Run
from energydiff.sampling.trace import Claim, Claims, Trace

ROUNDING = 1e-6  # of a noise level, relative: models keep theirs in single precision


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


class Sampler(ABC):
    """Sampling down a grid of noise levels.

    Args:
        sigmas: noise at the points of the trajectory, (steps + 1,), falling, all positive.
        final_denoise: end with x ← D(x, σ_min), one more step.

    Attributes:
        name: what it is called on command lines and in files; a class that sets none goes by its
            import path.
        order: of the error in the step size, for the probability-flow ODE.
        evaluations: function evaluations per step, fallbacks apart.
        descends: every step is covered by the descent theorem if the denoiser is convex.
        stochastic: draws noise along the way.
        needs_energy: refuses a model that has none.
        population: how many samples, with consecutive seeds, depend on each other and have to be
            drawn together.
        repeats: makes several moves at a noise level, which stands in ``sigmas`` as often.
    """

    name: str
    order: int | None = None
    evaluations: int = 1
    descends: bool = False
    stochastic: bool = False
    needs_energy: bool = False
    population: int = 1
    repeats: bool = False

    def __init__(self, sigmas: Sequence[float] | Tensor, final_denoise: bool = False) -> None:
        self.sigmas = given_sigmas(sigmas, repeats=self.repeats)
        self.final_denoise = final_denoise

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls):  # an heir is not what it inherits from
            cls.name = f"{cls.__module__}.{cls.__qualname__}"

    @abstractmethod
    def step(self, run: Run, here: Point, sigma: float) -> Tensor | Move:
        """x at the next ``sigma``, like ``here.x``; or a :class:`Move` that says more of it.

        ``here`` has ``x``, ``sigma``, ``residual`` (∇V = x − D) and of an energy ``energy`` and
        ``free_energy``; ``run`` evaluates the model elsewhere and draws noise.
        """

    def advance(self, run: Run, here: Point, sigma: float) -> Move:
        """:meth:`step` as a move, by default with the η of one down to ``sigma``."""
        moved = self.step(run, here, sigma)
        return moved if isinstance(moved, Move) else Move(moved, 1 - sigma / here.sigma)

    def denoise(self, run: Run, here: Point) -> Move:
        """The final x ← D(x, σ_min)."""
        return Move(here.x - here.residual, 1.0)

    @property
    def stays(self) -> bool:
        """At one noise level, so that V has no landscape part."""
        return bool(self.sigmas[0] == self.sigmas[-1])

    def diagnose(self, trace: Trace) -> Diagnosis | None:
        """How far the samples can be relied on, by the trace of all of them; of most samplers there
        is nothing to say."""
        return None

    def claims(self, model: Denoiser) -> Claims:
        """What kind of statement a certificate on this model would be."""
        convex = model.exact or model.convex_denoiser
        rising = model.exact or model.rising_free_energy
        # ∂V/∂σ ≥ 0 at any x, wherever the sampler goes
        landscape: Claim = "proved" if rising else "observed"
        if self.stochastic:
            return Claims("stochastic", "stochastic", landscape)
        descent: Claim = "proved" if convex and self.descends else "observed"
        return Claims(descent if rising or self.stays else "observed", descent, landscape)

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

        Warns if the noise levels leave those that the model knows (``model.noise``).

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
        keys = None if seeds is None else as_indices(seeds)
        if self.needs_energy:
            model.require_energy()
        self._check_noise(model)
        x, keys = self._start(model, x_init, keys)
        require_labels(model, x, None if label is None else label.cpu())  # once: may wait
        record = trace and model.energy is not None
        run = Run(model, label, keys if self.stochastic else None, record)
        path, found = self._path(run, x, on_step), None
        if record:
            last, found = follow(path, self.claims(model))
        else:
            last, _ = deque(path, maxlen=1).pop()
        return SampleResult(last.x, found, run.nfe, run.energy_evaluations)

    def _path(
        self, run: Run, x: Tensor, on_step: Callable[[int, Point], None] | None
    ) -> Iterator[tuple[Point, Step | None]]:
        levels = self.sigmas.tolist()
        steps = len(levels) - 1
        here = Point(run, x, levels[0])
        for index, sigma in enumerate([*levels[1:], *levels[-1:] * self.final_denoise]):
            if on_step is not None:
                on_step(index, here)
            move = self.advance(run, here, sigma) if index < steps else self.denoise(run, here)
            yield here, run.recorded(here, move, sigma)
            here = Point(run, move.x, sigma, move.answer)
        run.know(here)
        yield here, None

    def _check_noise(self, model: Denoiser) -> None:
        if model.noise_blind:
            if not self.stays:
                raise UserError(
                    f"{type(model).__name__} is one energy for all noise, and {type(self).__name__}"
                    " goes down noise levels: use GradientDescent, Nesterov or Armijo."
                )
        elif (noise := model.noise) is not None:
            (low, high), highest, lowest = noise, *self.sigmas[[0, -1]].tolist()
            if lowest < low * (1 - ROUNDING) or highest > high * (1 + ROUNDING):
                warnings.warn(
                    f"the noise levels from {highest:g} down to {lowest:g} leave those that"
                    f" {type(model).__name__} knows, {high:g} to {low:g}: what it says outside them"
                    " is a guess.",
                    stacklevel=4,  # who called the sampler, through no_grad
                )

    def _start(
        self, model: Denoiser, x_init: Tensor | None, seeds: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """x at σ_max, and the seeds on its device."""
        if self.stochastic and seeds is None:
            raise UserError(
                f"{type(self).__name__} draws noise along the way: give it seeds, one per sample."
            )
        if (x_init is None) == (seeds is None) and not self.stochastic:
            raise UserError("give a sampler either x_init or seeds, and not both.")
        if x_init is None:
            assert seeds is not None
            like = next(iter(model.state_dict().values()), torch.empty(0))
            dtype = like.dtype if like.is_floating_point() else torch.float32
            dtype, seeds = torch.promote_types(dtype, torch.float32), seeds.to(like.device)
            highest = float(self.sigmas[0])
            x_init = highest * keyed_normal(0, seeds, model.shape, SAMPLING, dtype)
        if tuple(x_init.shape[1:]) != tuple(model.shape):
            raise UserError(
                f"x_init has shape {tuple(x_init.shape)}; this model takes (B, *{model.shape})."
            )
        if seeds is not None and len(seeds) != len(x_init):
            raise UserError(
                f"x_init holds {len(x_init)} samples, but there are {len(seeds)} seeds."
            )
        return x_init, None if seeds is None else seeds.to(x_init.device)
