"""Retrieval: downhill on an energy from a corrupted sample to a fixed point, known entries held.

A memory has an update of its own, which never raises its H. Any other energy descends its free
energy over the entries that are free, with P the projection that zeroes the others:

    x' = x − η P∇V(x, σ) = x − η P(x − D),    V(x', σ) ≤ V(x, σ) − η(1 − η/2) ‖P∇V‖²,    0 ≤ η ≤ 2

for an exact energy: V − ½‖x‖² is concave, so V(x + δ) ≤ V(x) + ⟨∇V, δ⟩ + ½‖δ‖², and δ = −ηP∇V. Down
a noise grid η = 1 − σ'/σ, which with nothing held is Euler's sampling; at the lowest noise η = 1,
which puts the free entries where the denoiser has them, until they stay there: x = D(x, σ_min).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from energydiff.energies.base import Energy, at_least_float32, per_sample, require_samples
from energydiff.errors import UserError
from energydiff.memory.base import Memory
from energydiff.sampling.backtracking import backtrack
from energydiff.sampling.certificate import ROUNDINGS, Certificate, certify
from energydiff.sampling.grids import given_sigmas
from energydiff.sampling.trace import Claim, Recorder, Trace

TRIES = 7  # of η, its halvings among them, after which a sample stays where it is


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


@torch.no_grad()
def retrieve(
    energy: Energy,
    x: Tensor,
    clamp: Tensor | None = None,
    *,
    sigmas: float | Sequence[float] | Tensor | None = None,
    steps: int = 100,
    tolerance: float = 1e-6,
) -> Retrieval:
    """Descend down the noise grid, then at its lowest level until every sample rests.

    A sample at rest moves no more. The claim is ``proved`` for memories and exact energies. Of any
    other energy a move that raises V is shortened until it does not; so at one noise level the
    claim is ``enforced``. Down a grid it is ``observed``, for nothing enforces the landscape part.

    Args:
        energy: a memory that has stored its patterns (its states are in float64 inside), or an
            energy of noisy data.
        x: corrupted samples, (B, \\*shape).
        clamp: boolean, broadcast to ``x``; entries where it is true are known and held.
        sigmas: noise grid as a sampler takes it, or one level; not for a memory. Begin at about the
            RMS of what the corruption changed (the standard deviation of noise).
        steps: most steps at the lowest level.
        tolerance: largest change of an entry at which a sample rests, units of x.
    """
    if steps < 1 or not tolerance >= 0:
        raise UserError(f"steps must be at least 1 and tolerance at least 0: {steps}, {tolerance}.")
    held = _held(clamp, x)
    descent = _Update(energy, sigmas) if isinstance(energy, Memory) else _Descent(energy, sigmas)
    state, recorder = descent.start(x), Recorder()
    levels = [*descent.levels, *descent.levels[-1:] * steps]
    for step, sigma in enumerate(levels):
        here = descent.at(state, sigma, held)
        recorder.at(sigma, here.energy, here.free_energy, here.residual, here.x)
        annealing = step < len(descent.levels) - 1
        at_rest = here.residual.flatten(1).abs().amax(1) <= tolerance
        if step == len(levels) - 1 or (step > 0 and not annealing and bool(at_rest.all())):
            break
        if annealing:
            eta = torch.full_like(here.energy, 1 - levels[step + 1] / sigma)
        else:
            eta = torch.where(at_rest, 0.0, torch.ones_like(here.energy))
        state, free_energy, eta = descent.move(here, eta)
        recorder.moved(descent.promise * eta, free_energy)
    trace = recorder.trace(descent.claim)
    return Retrieval(state.view_as(x).to(x), trace, certify(trace), at_rest)


@dataclass(frozen=True)
class _Here:
    """A point, and ``residual`` = x − x', 0 where held, for the full step (η = 1) to x'."""

    x: Tensor
    sigma: float
    energy: Tensor
    free_energy: Tensor
    residual: Tensor


class _Way(ABC):
    """A way downhill.

    Attributes:
        levels: noise grid, falling.
        promise: part of η in the bound η(1 − η/2)‖residual‖² on the fall of V.
        claim: what a passed certificate says.
    """

    levels: list[float]
    promise: float = 1.0
    claim: Claim = "proved"

    @abstractmethod
    def start(self, x: Tensor) -> Tensor:
        """The checked first state."""

    @abstractmethod
    def at(self, x: Tensor, sigma: float, held: Tensor) -> _Here:
        """What there is to know at a state; ``held`` is like ``x``."""

    @abstractmethod
    def move(self, here: _Here, eta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The next state, its V at unchanged noise (B,), and the η (B,) that was taken."""


class _Update(_Way):
    """A memory's own update."""

    def __init__(self, memory: Memory, sigmas: object) -> None:
        if sigmas is not None:
            raise UserError(f"{type(memory).__name__} knows no noise: leave sigmas out.")
        self.memory, self.levels, self.promise = memory, [1.0], memory.promise

    def start(self, x: Tensor) -> Tensor:
        self.memory.check_states(x)
        wide = torch.float32 if x.device.type == "mps" else torch.float64
        return self.memory.start(x.flatten(1).to(wide))

    def at(self, x: Tensor, sigma: float, held: Tensor) -> _Here:
        energy = self.memory.hamiltonian(x)
        change = x - self.memory.update(x, held.flatten(1))
        return _Here(x, sigma, energy, self.memory.energy_to_free_energy(energy, sigma), change)

    def move(self, here: _Here, eta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = here.x - per_sample(eta, here.x) * here.residual
        energy = self.memory.hamiltonian(x)
        return x, self.memory.energy_to_free_energy(energy, here.sigma), eta


class _Descent(_Way):
    """Gradient descent on V, shortened where V would rise and no theorem forbids it."""

    def __init__(self, energy: Energy, sigmas: float | Sequence[float] | Tensor | None) -> None:
        self.energy = energy.require_energy()
        if sigmas is None:
            raise UserError(
                f"{type(energy).__name__} is an energy of noisy data: give retrieve sigmas, the"
                " noise levels to descend, the first about the size of what the corruption changed."
            )
        level = torch.as_tensor(sigmas, dtype=torch.float64)
        if level.ndim == 0 and not 0 < float(level) < float("inf"):
            raise UserError(f"sigmas must be positive and finite, got {float(level)}.")
        self.levels = [float(level)] if level.ndim == 0 else given_sigmas(level).tolist()
        if not energy.exact:
            self.claim = "enforced" if len(self.levels) == 1 else "observed"

    def start(self, x: Tensor) -> Tensor:
        require_samples(self.energy, x)
        return at_least_float32(x)

    def at(self, x: Tensor, sigma: float, held: Tensor) -> _Here:
        energy, grad = self.energy.value_and_grad(x, sigma)
        residual = torch.where(held, 0.0, sigma**2 * grad)
        return _Here(x, sigma, energy, self.energy.energy_to_free_energy(energy, sigma), residual)

    def move(self, here: _Here, eta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # Half a certificate's allowance: its other half is for evaluating V once more.
        size = torch.maximum(here.free_energy.abs(), (here.sigma**2 * here.energy).abs())
        allowed = here.free_energy + 0.5 * ROUNDINGS * torch.finfo(size.dtype).eps * size
        if self.energy.exact:
            allowed = torch.full_like(allowed, torch.inf)
        taken = backtrack(
            lambda x, _: self.energy.free_energy(x, here.sigma),
            lambda _: allowed,
            here.x,
            here.free_energy,
            here.residual,
            eta,
            tries=TRIES,
        )
        return taken.x, taken.value, taken.step


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
