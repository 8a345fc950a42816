"""Energies on normalised tokens g, each with its gradient written out (Hoover et al. 2023).

    E_att = −Σ_h (w_h/β_h) Σ_C logsumexp_B(β_h Q_hC·K_hB),    Q = W_Q g, K = W_K g
    E_mem = −½ Σ_C Σ_μ w_μ relu(ξ_μ·g_C + b_μ)²,    or    −w Σ_C logsumexp_μ(ξ_μ·g_C + b_μ)

The published block has w = 1 and b = 0. What varies with the noise level and the label, β and b,
comes in as a conditioning vector, so a term stays one scalar. Values and gradients are made of
differentiable operations: a loss on either trains the term with one ordinary backward.
"""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from energydiff.errors import UserError
from energydiff.memory.lagrangians import Lagrangian
from energydiff.potentials.energy_attention import attention_terms, attention_value

Weights = Literal["unit", "learned"]
MemoryActivation = Literal["relu2", "softmax"]


class EnergyTerm(nn.Module, ABC):
    """One term of an energy on tokens g (B, N, D).

    Attributes:
        size: entries of the conditioning vector that the term takes.
    """

    size: int
    weights: Tensor

    @abstractmethod
    def forward(self, g: Tensor, e: Tensor | None = None) -> Tensor:
        """The term alone, (B,)."""

    @abstractmethod
    def value_and_grads(self, g: Tensor, e: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The term (B,), in float32 or wider, ∂/∂g, like ``g``, and ∂/∂e, (B, size); ``e`` is
        (B or 1, size) or 0."""

    def value_and_grad(self, g: Tensor, e: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The term and ∂/∂g alone."""
        return self.value_and_grads(g, e)[:2]


class AttentionEnergy(EnergyTerm):
    """E_att: one conditioning entry per head, β_h = exp(e_h)/√head_width.

    Args:
        width: D.
        heads: H.
        head_width: Y, width of Q and K per head.
        self_excluded: no token attends to itself.
        head_weights: w_h = 1, or ``learned`` of either sign.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        head_width: int,
        self_excluded: bool = False,
        head_weights: Weights = "unit",
    ) -> None:
        super().__init__()
        self.size = heads
        self.self_excluded = self_excluded
        self.projection = nn.Parameter(torch.randn(2, heads, head_width, width) * width**-0.5)
        _add_weights(self, head_weights, heads)

    def forward(self, g: Tensor, e: Tensor | None = None) -> Tensor:
        q, k, _, weight = self._inputs(g, e)
        return (weight * attention_value(q, k, self.self_excluded)).sum(1)

    def value_and_grads(self, g: Tensor, e: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        q, k, beta, weight = self._inputs(g, e)
        total, to_q, to_k = attention_terms(q, k, self.self_excluded)
        value = weight * total  # per head
        weight = weight[..., None, None].to(q.dtype)
        to_q, to_k = weight * to_q, weight * to_k
        to_e = (q * to_q).sum((2, 3)) - value
        grad = rearrange([beta * to_q, to_k], "t b h n y -> b n (t h y)")
        return value.sum(1), grad @ self.projection.flatten(0, 2), to_e

    def _inputs(self, g: Tensor, e: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """βQ and K, (B, H, N, Y), β (…, H, 1, 1) in their dtype, and −w/β, (…, H)."""
        two, heads, head_width, _ = self.projection.shape
        flat = self.projection.flatten(0, 2)
        q, k = rearrange(g @ flat.mT, "b n (t h y) -> t b h n y", t=two, h=heads)
        beta = head_width**-0.5 * (torch.ones_like(self.weights) if e is None else e.exp())
        weight = -self.weights / beta
        beta = beta[..., None, None].to(q.dtype)
        return beta * q, k, beta, weight


class MemoryEnergy(EnergyTerm):
    """E_mem of patterns ξ: one conditioning entry per pattern, its bias b.

    Args:
        width: D.
        memories: M, number of patterns.
        activation: ``relu2`` or ``softmax``; the latter's β is the scale of ξ.
        memory_weights: w = 1, or ``learned`` of either sign: per pattern, or one for softmax.
    """

    def __init__(
        self,
        width: int,
        memories: int,
        activation: MemoryActivation = "relu2",
        memory_weights: Weights = "unit",
    ) -> None:
        super().__init__()
        if activation not in ("relu2", "softmax"):
            raise UserError(f"activation is {activation!r}; choose relu2 or softmax.")
        self.size = memories
        self.activation = activation
        self.patterns = nn.Parameter(torch.randn(memories, width) * width**-0.5)
        _add_weights(self, memory_weights, memories if activation == "relu2" else 1)

    def forward(self, g: Tensor, e: Tensor | None = None) -> Tensor:
        return self._value_and_slope(g, e)[0]

    def value_and_grads(self, g: Tensor, e: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        value, slope = self._value_and_slope(g, e)
        return value, slope @ self.patterns, slope.sum(1)

    def _value_and_slope(self, g: Tensor, e: Tensor | None) -> tuple[Tensor, Tensor]:
        """The term (B,) and its derivative by every ξ_μ·g_C, (B, N, M)."""
        z = g @ self.patterns.mT
        if e is not None:
            z = z + e[:, None]
        weights = self.weights.to(z.dtype)
        if self.activation == "relu2":
            z = z.relu()
            return -0.5 * _sum(weights * z.square()), -weights * z
        return -_sum(weights * z.logsumexp(-1, keepdim=True)), -weights * z.softmax(-1)


class EnergyLayerNorm(Lagrangian):
    """g = γ (x − x̄)/√(mean((x − x̄)²) + ε) + δ per token: the layer-norm Lagrangian, learned.

    γ is one positive number; a scale per entry would have no Lagrangian. ε = 1e-5.

    Args:
        width: D.
    """

    eps = 1e-5

    def __init__(self, width: int) -> None:
        super().__init__()
        self.log_gamma = nn.Parameter(torch.zeros(()))
        self.delta = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        std = (x.var(-1, correction=0) + self.eps).sqrt()
        return x.shape[-1] * self.log_gamma.exp() * std + (self.delta * x).sum(-1)

    def activation(self, x: Tensor) -> Tensor:
        return self.log_gamma.exp() * self._standardise(x)[0] + self.delta

    def pullback(self, x: Tensor, cotangent: Tensor) -> Tensor:
        """(∂g/∂x)ᵀ · cotangent = γr P(cotangent), like ``x``; ∂g/∂x = ∇²L is symmetric."""
        n, r = self._standardise(x)
        projected = cotangent - cotangent.mean(-1, keepdim=True)
        projected = projected - n * (cotangent * n).mean(-1, keepdim=True)
        return self.log_gamma.exp() * r * projected

    def _standardise(self, x: Tensor) -> tuple[Tensor, Tensor]:
        variance, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
        r = (variance + self.eps).rsqrt()
        return (x - mean) * r, r


def _add_weights(term: EnergyTerm, kind: Weights, count: int) -> None:
    """w = 1, or learned of either sign, small so that a sum of terms starts small."""
    if kind == "learned":
        term.weights = nn.Parameter(0.15 * torch.randn(count))
    elif kind == "unit":
        term.register_buffer("weights", torch.ones(count), persistent=False)
    else:
        raise UserError(f"weights are {kind!r}; choose unit or learned.")


def _sum(values: Tensor) -> Tensor:
    """(B, N, …) to (B,), in float32 or wider."""
    return values.flatten(1).sum(1, dtype=torch.promote_types(values.dtype, torch.float32))
