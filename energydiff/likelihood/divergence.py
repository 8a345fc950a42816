"""The divergence of a denoiser, tr ∂D/∂x, exact or estimated.

For vectors v with E[vvᵀ] = I the mean of vᵀ (∂D/∂x) v is the trace (Hutchinson 1990); random signs
have the least variance among independent entries, 2 Σ_{i≠j} J_ij² for a symmetric Jacobian J. The
d unit vectors give the trace itself, for d backward passes.

By Tweedie's formula the Laplacian of the energy is ΔE = (d − tr ∂D/∂x)/σ².
"""

import math

import torch
from torch import Tensor

from energydiff.derivatives import differentiable, ordinary
from energydiff.energies.base import Denoiser, Sigma, at_least_float32
from energydiff.errors import UserError
from energydiff.random import keyed_signs


def trace_probes(x: Tensor, count: int | None, seed: int = 0, first: int = 0) -> Tensor:
    """Vectors v with Σ_p v_pᵀ J v_p = tr J, or an unbiased estimate of it; (P, B, \\*shape).

    Args:
        x: the points of the batch, (B, \\*shape).
        count: Hutchinson probes per point, each signs/√P; ``None`` for the d unit vectors: exact.
        seed, first: probes belong to (seed, index of the point), the first point's being
            ``first``.
    """
    if count is None:
        axes = torch.eye(x[0].numel(), dtype=x.dtype, device=x.device)
        return axes.view(-1, 1, *x.shape[1:]).expand(-1, *x.shape)
    if count < 1:
        raise UserError(f"probes must be at least 1, or None for the exact trace; got {count}.")
    indices = range(first * count, (first + len(x)) * count)
    signs = keyed_signs(seed, indices, tuple(x.shape[1:])).view(len(x), count, *x.shape[1:])
    return signs.to(x).transpose(0, 1) / math.sqrt(count)


def denoise_and_divergence(
    denoiser: Denoiser, x: Tensor, sigma: Sigma, probes: Tensor, label: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """D like ``x`` (B, \\*shape) and Σ_p v_pᵀ (∂D/∂x) v_p (B,), without a graph.

    Any denoiser, with an energy or without one; one forward pass and P backward passes.
    ``probes`` are (P, B, \\*shape), see :func:`trace_probes`.
    """
    with differentiable(x.device, autocast=False):
        x = at_least_float32(x).clone().detach().requires_grad_()
        sigma, label = ordinary(sigma), ordinary(label)
        denoised = denoiser.denoise(x, sigma, label)
        divergence = x.new_zeros(len(x))
        for probe in probes:
            vector = probe.to(x, copy=True)
            (row,) = torch.autograd.grad(denoised, x, vector, retain_graph=True)
            divergence += (row * vector).flatten(1).sum(1)
    return denoised.detach(), divergence
