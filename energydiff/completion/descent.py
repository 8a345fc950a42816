"""Masked images completed by descent of an energy of tokens, no step of which may raise it.

Recorded in the samplers' :class:`Trace`: there is no noise, so σ is 1, V and E are both the block's
energy, ``grad_norm`` is ‖∂E/∂g‖, and the landscape part and ``bound`` are 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from energydiff.completion.network import MaskedCompletion
from energydiff.errors import UserError
from energydiff.sampling.backtracking import Backtracked, backtrack
from energydiff.sampling.certificate import Certificate, certify
from energydiff.sampling.path import Step, follow
from energydiff.sampling.trace import Trace


@dataclass(frozen=True)
class Completion:
    """Completed images, and how.

    Attributes:
        samples: (B, \\*shape), visible pixels as given.
        trace: energy along the descent.
        certificate: did E fall at every step? Its claim is ``enforced``; its ``fallbacks`` are the
            steps taken with less than the network's own step size.
    """

    samples: Tensor
    trace: Trace
    certificate: Certificate


@torch.no_grad()
def complete(network: MaskedCompletion, x: Tensor, hidden: Tensor) -> Completion:
    """Fill hidden patches in the network's T steps, each halved, per sample, until E falls.

    −∂E/∂g is a direction of descent, so a short enough step does; a sample at rest to rounding,
    for which none is found, stays where it is.

    Args:
        x: images (B, \\*shape); hidden pixels are not looked at.
        hidden: bool (B, N), N patches in raster order.
    """
    if tuple(x.shape[1:]) != network.shape or hidden.shape != (len(x), network.tokens):
        raise UserError(
            f"complete takes images (B, *{network.shape}) and hidden patches (B, {network.tokens}),"
            f" got {tuple(x.shape)} and {tuple(hidden.shape)}."
        )
    last, trace = follow(_path(network, network.encode(x, hidden)), "enforced")
    predicted = network.patches.join(network.decode(last.tokens))
    samples = torch.where(network.pixels(hidden), predicted, x)
    return Completion(samples, trace, certify(trace))


@dataclass(frozen=True)
class _Here:
    """Tokens, their energy and ``residual`` = ∂E/∂g."""

    tokens: Tensor
    energy: Tensor
    residual: Tensor
    sigma: float = 1.0
    x: Tensor | None = None

    @property
    def free_energy(self) -> Tensor:
        return self.energy


def _path(network: MaskedCompletion, tokens: Tensor) -> Iterator[tuple[_Here, Step | None]]:
    here = _Here(tokens, *network.block.token_force(tokens))
    for _ in range(network.steps):
        taken = _lower(network, here)
        there = _Here(taken.x, *network.block.token_force(taken.x))
        yield here, Step(0.0, there.energy, taken.refused)
        here = there
    yield here, None


def _lower(network: MaskedCompletion, here: _Here) -> Backtracked:
    """The network's own step, shortened until E is below what it was: no rounding is forgiven."""
    below = here.energy.nextafter(torch.full_like(here.energy, -torch.inf))
    return backtrack(
        lambda x, _: network.block(x),
        lambda _: below,
        here.tokens,
        here.energy,
        here.residual,
        network.step_size,
    )
