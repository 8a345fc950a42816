"""A way downhill, gone until every sample rests, known entries held.

Where it leads is the way's own matter: a memory's update (:meth:`Memory.retrieve`), or descent of a
diffusion energy (:func:`energydiff.memory.retrieve`).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from energydiff.errors import UserError
from energydiff.sampling.certificate import Certificate, certify
from energydiff.sampling.path import Step, follow
from energydiff.sampling.trace import Claim, Trace


@dataclass(frozen=True)
class Retrieval:
    """What was retrieved, and how.

    Attributes:
        samples: (B, \\*shape), like the start.
        trace: the energy along the way. A memory knows no noise: there σ is 1, V is H up to a
            constant, and ``grad_norm`` is ‖x − x'‖, the length of the next update.
        certificate: did V fall at every step?
        at_rest: the next full step would move no entry by more than the tolerance, (B,).
    """

    samples: Tensor
    trace: Trace
    certificate: Certificate
    at_rest: Tensor


@dataclass(frozen=True)
class Here:
    """A point, and ``residual`` = x − x', 0 where held, for the full step (η = 1) to x'."""

    x: Tensor
    sigma: float
    energy: Tensor
    free_energy: Tensor
    residual: Tensor

    def at_rest(self, tolerance: float) -> Tensor:
        """No entry would move by more, (B,)."""
        return self.residual.flatten(1).abs().amax(1) <= tolerance


class Way(ABC):
    """A way downhill.

    Attributes:
        levels: noise grid, falling.
        claim: what a passed certificate says.
    """

    levels: list[float]
    claim: Claim = "proved"

    @abstractmethod
    def start(self, x: Tensor) -> Tensor:
        """The checked first state."""

    @abstractmethod
    def at(self, x: Tensor, sigma: float, held: Tensor) -> Here:
        """What there is to know at a state; ``held`` is like the samples."""

    @abstractmethod
    def move(self, here: Here, eta: Tensor) -> tuple[Tensor, Step]:
        """The next state, η (B,) or less of the way to x', with its V and the bound on its fall."""


@torch.no_grad()
def go(way: Way, x: Tensor, clamp: Tensor | None, steps: int, tolerance: float) -> Retrieval:
    """Down the levels of a way, then at most ``steps`` steps at the lowest until all rest.

    Args:
        x, clamp: as of :func:`energydiff.memory.retrieve`.
        tolerance: largest change of an entry at which a sample rests, units of x.
    """
    if steps < 1 or not tolerance >= 0:
        raise UserError(f"steps must be at least 1 and tolerance at least 0: {steps}, {tolerance}.")
    path = _path(way, way.start(x), _held(clamp, x), steps, tolerance)
    last, trace = follow(path, way.claim)
    samples = last.x.view_as(x).to(x)
    return Retrieval(samples, trace, certify(trace), last.at_rest(tolerance))


def _path(
    way: Way, state: Tensor, held: Tensor, steps: int, tolerance: float
) -> Iterator[tuple[Here, Step | None]]:
    levels = [*way.levels, *way.levels[-1:] * steps]
    for step, sigma in enumerate(levels):
        here = way.at(state, sigma, held)
        annealing, at_rest = step < len(way.levels) - 1, here.at_rest(tolerance)
        if step == len(levels) - 1 or (step > 0 and not annealing and bool(at_rest.all())):
            yield here, None
            return
        if annealing:
            eta = torch.full_like(here.energy, 1 - levels[step + 1] / sigma)
        else:
            eta = torch.where(at_rest, 0.0, torch.ones_like(here.energy))
        state, taken = way.move(here, eta)
        yield here, taken


def _held(clamp: Tensor | None, x: Tensor) -> Tensor:
    """The mask, like x."""
    if clamp is None:
        return torch.zeros_like(x, dtype=torch.bool)
    clamp = torch.as_tensor(clamp, device=x.device)
    try:
        if clamp.dtype is not torch.bool:
            raise RuntimeError
        return clamp.expand_as(x)
    except RuntimeError:
        raise UserError(
            f"clamp must be boolean and broadcast to x of shape {tuple(x.shape)}, got"
            f" {tuple(clamp.shape)} {clamp.dtype}."
        ) from None
