"""Retrieval: a memory's update, repeated to a fixed point, with entries that are held.

Recorded in the samplers' :class:`Trace` at σ = 1, where V is the memory's H up to a constant:
the landscape part is 0, ``grad_norm`` is ‖x − x'‖, the length of the next update (for a log-sum-exp
memory ‖∇H‖ over the free entries), and ``bound`` is the fall that the memory promises.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from energydiff.energies.memory.base import Memory
from energydiff.errors import UserError
from energydiff.sampling.certificate import Certificate, certify
from energydiff.sampling.trace import Recorder, Trace


@dataclass(frozen=True)
class Retrieval:
    """What was retrieved, and how.

    Attributes:
        samples: (B, \\*shape), like the start.
        trace: the memory's energy along the way.
        certificate: did the energy fall at every step? Its claim is ``proved``.
        at_rest: the last update moved no entry by more than the tolerance, (B,).
    """

    samples: Tensor
    trace: Trace
    certificate: Certificate
    at_rest: Tensor


@torch.no_grad()
def retrieve(
    memory: Memory,
    x: Tensor,
    clamp: Tensor | None = None,
    *,
    steps: int = 100,
    tolerance: float = 1e-6,
) -> Retrieval:
    """Update until every sample rests, at most ``steps`` times; in float64 inside.

    Args:
        x: corrupted patterns, (B, \\*shape).
        clamp: boolean, broadcast to ``x``; entries where it is true are known and held.
        tolerance: largest change of an entry at which a sample rests, units of x.
    """
    memory.check_states(x)
    if steps < 1:
        raise UserError(f"steps must be at least 1, got {steps}.")
    state = memory.start(
        x.flatten(1).to(torch.float32 if x.device.type == "mps" else torch.float64)
    )
    held = _held(clamp, x)
    recorder = Recorder()
    energy = memory.hamiltonian(state)
    for step in range(steps + 1):
        updated = memory.update(state, held)
        change = state - updated
        recorder.at(1.0, energy, memory.energy_to_free_energy(energy, 1.0), change)
        at_rest = change.abs().amax(1) <= tolerance
        if step == steps or (step > 0 and bool(at_rest.all())):
            break
        state, energy = updated, memory.hamiltonian(updated)
        recorder.moved(memory.promise, memory.energy_to_free_energy(energy, 1.0))
    trace = recorder.trace("proved")
    return Retrieval(state.view_as(x).to(x), trace, certify(trace), at_rest)


def _held(clamp: Tensor | None, x: Tensor) -> Tensor:
    """The mask as (B, d)."""
    if clamp is None:
        return torch.zeros_like(x, dtype=torch.bool).flatten(1)
    clamp = torch.as_tensor(clamp, device=x.device)
    try:
        if clamp.dtype is not torch.bool:
            raise RuntimeError
        return clamp.expand_as(x).flatten(1)
    except RuntimeError:
        raise UserError(
            f"clamp must be boolean and broadcast to x of shape {tuple(x.shape)}, got"
            f" {tuple(clamp.shape)} {clamp.dtype}."
        ) from None
