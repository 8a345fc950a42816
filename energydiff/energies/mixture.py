"""Gaussian mixture: the exact diffusion energy of a smooth density, at any noise."""

import math

import torch
from torch import Tensor

from energydiff.energies.base import Energy, per_sample
from energydiff.errors import UserError


class GaussianMixture(Energy):
    """E(x, σ) = −log Σ_k w_k N(x; m_k, s_k² + σ²), constants included.

    Args:
        means: m_k, (K, \\*shape).
        std: s_k in units of x: one number, (K,), or (K, \\*shape) for diagonal covariances.
            0 is allowed and makes the component a point.
        weights: w_k > 0, (K,), normalised here; equal if not given.

    Source: theory of denoising, e.g. Karras et al. 2022, §2 (convolved density).
    """

    exact = True
    means: Tensor
    std: Tensor
    weights: Tensor

    def __init__(
        self, means: Tensor, std: float | Tensor = 0.0, weights: Tensor | None = None
    ) -> None:
        super().__init__()
        means = torch.as_tensor(means)
        if means.ndim < 2 or means.shape[0] == 0 or not means.is_floating_point():
            raise UserError(
                f"means must be floating point of shape (K, *shape) with K >= 1, got"
                f" {tuple(means.shape)} {means.dtype}."
            )
        count = means.shape[0]
        std = torch.as_tensor(std, dtype=means.dtype, device=means.device)
        if std.ndim == 1:
            std = std.view(-1, *[1] * (means.ndim - 1))
        weights = torch.ones(count) if weights is None else torch.as_tensor(weights)
        weights = weights.to(means)
        if weights.shape != (count,) or not bool((weights > 0).all()):
            raise UserError(f"weights must be {count} positive numbers, one per mean.")
        if bool((std < 0).any()):
            raise UserError("std must not be negative.")
        self.shape = tuple(means.shape[1:])
        self.register_buffer("means", means)
        self.register_buffer("std", std.expand_as(means).clone())
        self.register_buffer("weights", weights / weights.sum())

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        variance = self.std.square() + per_sample(sigma, x)[..., None].square()
        variance = variance.expand(x.shape[0], *self.means.shape).flatten(2)
        residual = (x[:, None] - self.means).flatten(2)
        log_normal = -0.5 * (residual.square() / variance + (2 * math.pi * variance).log()).sum(-1)
        return -torch.logsumexp(self.weights.log() + log_normal, dim=1)

    def extra_repr(self) -> str:
        return f"components={len(self.means)}, shape={self.shape}"
