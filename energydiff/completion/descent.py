"""Masked images completed by descent of an energy of tokens, no step of which may raise it.

Recorded in the samplers' :class:`Trace`: there is no noise, so σ is 1, V and E are both the block's
energy, ``grad_norm`` is ‖∂E/∂g‖, and the landscape part and ``bound`` are 0.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from energydiff.completion.network import MaskedCompletion
from energydiff.errors import UserError
from energydiff.sampling.backtracking import Backtracked, backtrack
from energydiff.sampling.certificate import Certificate, certify
from energydiff.sampling.trace import Recorder, Trace


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
    tokens = network.encode(x, hidden)
    recorder = Recorder()
    energy, force = network.block.token_force(tokens)
    for _ in range(network.steps):
        recorder.at(1.0, energy, energy, force)
        move = _lower(network, tokens, energy, force)
        tokens = move.x
        energy, force = network.block.token_force(tokens)
        recorder.moved(0.0, energy, move.refused)
    recorder.at(1.0, energy, energy, force)
    predicted = network.patches.join(network.decode(tokens))
    trace = recorder.trace("enforced")
    samples = torch.where(network.pixels(hidden), predicted, x)
    return Completion(samples, trace, certify(trace))


def _lower(network: MaskedCompletion, tokens: Tensor, energy: Tensor, force: Tensor) -> Backtracked:
    """The network's own step, shortened until E is below what it was."""
    below = energy.nextafter(torch.full_like(energy, -torch.inf))
    return backtrack(
        lambda x, _: network.block(x),
        lambda _: below,
        tokens,
        energy,
        force,
        network.step_size,
    )
