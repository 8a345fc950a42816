"""One call of a sampler: the model's evaluations, counted, and the samples' noise."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from energydiff.energies.base import Denoiser
from energydiff.errors import UserError
from energydiff.random import SAMPLING, keyed_normal, keyed_uniform
from energydiff.sampling.path import Step
from energydiff.sampling.population import Resampled


@dataclass(frozen=True)
class Answer:
    """What a model says at x and σ: ∇V = x − D like x; E and V (B,), ``None`` for a baseline."""

    residual: Tensor
    energy: Tensor | None = None
    free_energy: Tensor | None = None

    def of(self, rows: Tensor) -> "Answer":
        """For some of the samples, of an energy: indices."""
        assert self.energy is not None and self.free_energy is not None
        return Answer(self.residual[rows], self.energy[rows], self.free_energy[rows])


class Point:
    """A point of a trajectory. The model is asked when its answer is first wanted, and once."""

    def __init__(self, run: "Run", x: Tensor, sigma: float, answer: Answer | None = None) -> None:
        self.x, self.sigma = x, sigma
        self.run, self.known = run, answer

    @property
    def answer(self) -> Answer:
        if self.known is None:
            self.known = self.run.evaluate(self.x, self.sigma)
        return self.known

    @property
    def residual(self) -> Tensor:
        """∇V = x − D(x, σ), like x."""
        return self.answer.residual

    @property
    def energy(self) -> Tensor:
        """E(x, σ), nats, (B,)."""
        return self._of_an_energy(self.answer.energy)

    @property
    def free_energy(self) -> Tensor:
        """V(x, σ), (B,)."""
        return self._of_an_energy(self.answer.free_energy)

    def replaced(self, rows: Tensor, x: Tensor, answer: Answer) -> "Point":
        """This point with other samples at ``rows``, their indices."""
        merged = (
            _replaced(self.residual, rows, answer.residual),
            _replaced(self.energy, rows, answer.energy),
            _replaced(self.free_energy, rows, answer.free_energy),
        )
        return Point(self.run, _replaced(self.x, rows, x), self.sigma, Answer(*merged))

    def unless(self, taken: Tensor, there: "Point") -> "Point":
        """This point, and ``there`` where ``taken``, (B,): at the same σ."""
        wide = taken.view(-1, *[1] * (self.x.ndim - 1))
        here, new = self.answer, there.answer
        answer = Answer(torch.where(wide, new.residual, here.residual))
        if here.energy is not None:
            energy = torch.where(taken, there.energy, self.energy)
            free_energy = torch.where(taken, there.free_energy, self.free_energy)
            answer = Answer(answer.residual, energy, free_energy)
        return Point(self.run, torch.where(wide, there.x, self.x), self.sigma, answer)

    def _of_an_energy(self, value: Tensor | None) -> Tensor:
        if value is None:
            self.run.model.require_energy()
        assert value is not None
        return value


def _replaced(old: Tensor, rows: Tensor, new: Tensor | None) -> Tensor:
    assert new is not None
    merged = old.clone()
    merged[rows] = new.to(merged)
    return merged


@dataclass(frozen=True)
class Move:
    """A step of a sampler, with what it already knows.

    Attributes:
        x: where it went, (B, \\*shape).
        step_size: η of its bound, one for all or (B,).
        free_energy: V(x', σ) at the noise it started from, (B,), if it was evaluated.
        answer: the model's at x' and the new noise, if it was asked.
        fallbacks: proposals refused, (B,), by a sampler that can refuse.
        resampled: where x came from, by a sampler of populations.
    """

    x: Tensor
    step_size: float | Tensor
    free_energy: Tensor | None = None
    answer: Answer | None = None
    fallbacks: Tensor | None = None
    resampled: Resampled | None = None


class Run:
    """What a sampler asks for while it runs.

    ``rows`` are the indices of the samples that are asked about, where that is not the whole batch.
    ``carry`` is whatever a sampler keeps from one step to the next.
    """

    def __init__(
        self, model: Denoiser, label: Tensor | None, seeds: Tensor | None, record: bool
    ) -> None:
        self.model, self.label, self.record = model, label, record
        self.nfe = self.energy_evaluations = 0
        self.carry: Any = None
        # Noise belongs to (draw, seed of the sample), whatever batch it is in; draw 0 is its start.
        self._seeds, self._draws = seeds, 0

    def evaluate(self, x: Tensor, sigma: float, rows: Tensor | None = None) -> Answer:
        """E, V and ∇V: one function evaluation."""
        self.nfe += 1
        return self._ask(x, sigma, rows)

    def free_energy(self, x: Tensor, sigma: float, rows: Tensor | None = None) -> Tensor:
        """V alone: one energy evaluation."""
        self.energy_evaluations += 1
        return self.model.require_energy().free_energy(x, sigma, self._label(rows))

    def normal(self, x: Tensor) -> Tensor:
        """Fresh standard normal noise like x."""
        return keyed_normal(*self._key(), x.shape[1:], SAMPLING, x.dtype)

    def uniform(self, like: Tensor) -> Tensor:
        """Fresh numbers in (0, 1), (B,), of the type of ``like``."""
        return keyed_uniform(*self._key(), 1, SAMPLING)[:, 0].to(like.dtype)

    def _key(self) -> tuple[int, Tensor]:
        """Of a fresh draw of every sample."""
        if self._seeds is None:
            raise UserError("a sampler that draws noise says so: stochastic = True in its class.")
        self._draws += 1
        return self._draws, self._seeds

    def recorded(self, here: Point, move: Move, sigma: float) -> Step:
        """What a record asks for of the move from a point to noise ``sigma``."""
        after = None
        if self.record:
            self.know(here)
            if sigma != here.sigma:
                after = move.free_energy
                after = self.free_energy(move.x, here.sigma) if after is None else after
        return Step(move.step_size, after, move.fallbacks, move.resampled)

    def know(self, here: Point) -> None:
        """Evaluate a point that the sampler had no use for, if it is to be recorded."""
        if self.record and here.known is None:
            self.energy_evaluations += 1
            here.known = self._ask(here.x, here.sigma)

    def _ask(self, x: Tensor, sigma: float, rows: Tensor | None = None) -> Answer:
        label, model = self._label(rows), self.model.energy
        if model is None:
            return Answer(x - self.model.denoise(x, sigma, label))
        energy, grad = model.value_and_grad(x, sigma, label)
        return Answer(sigma**2 * grad, energy, model.energy_to_free_energy(energy, sigma))

    def _label(self, rows: Tensor | None) -> Tensor | None:
        return self.label if self.label is None or rows is None else self.label[rows]
