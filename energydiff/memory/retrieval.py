"""Retrieval: downhill on an energy from a corrupted sample to a fixed point, known entries held.

A memory has an update of its own, which never raises its H. Any other energy descends its free
energy over the entries that are free, with P the projection that zeroes the others:

    x' = x − η P∇V(x, σ) = x − η P(x − D),    V(x', σ) ≤ V(x, σ) − η(1 − η/2) ‖P∇V‖²,    0 ≤ η ≤ 2

for an exact energy: V − ½‖x‖² is concave, so V(x + δ) ≤ V(x) + ⟨∇V, δ⟩ + ½‖δ‖², and δ = −ηP∇V. Down
a noise grid η = 1 − σ'/σ, which with nothing held is Euler's sampling; at the lowest noise η = 1,
which puts the free entries where the denoiser has them, until they stay there: x = D(x, σ_min).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from energydiff.energies.base import Energy, at_least_float32
from energydiff.errors import UserError
from energydiff.memory.base import Memory
from energydiff.memory.downhill import Here, Retrieval, Way, go
from energydiff.sampling.backtracking import backtrack
from energydiff.sampling.certificate import allowance
from energydiff.sampling.grids import given_sigmas
from energydiff.sampling.path import Step

TRIES = 7  # of η, its halvings among them, after which a sample stays where it is


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
    if not isinstance(energy, Memory):
        return go(_Descent(energy, sigmas), x, clamp, steps, tolerance)
    if sigmas is not None:
        raise UserError(f"{type(energy).__name__} knows no noise: leave sigmas out.")
    return energy.retrieve(x, clamp, steps=steps, tolerance=tolerance)


class _Descent(Way):
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
        self.energy.check(x)
        return at_least_float32(x)

    def at(self, x: Tensor, sigma: float, held: Tensor) -> Here:
        energy, grad = self.energy.value_and_grad(x, sigma)
        residual = torch.where(held, 0.0, sigma**2 * grad)
        return Here(x, sigma, energy, self.energy.energy_to_free_energy(energy, sigma), residual)

    def move(self, here: Here, eta: Tensor) -> tuple[Tensor, Step]:
        allowed = here.free_energy + allowance(here)
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
        return taken.x, Step(taken.step, taken.value)
