"""Lagrangians of neuron layers: convex functions L whose gradient is the activation.

For a layer with state x (…, D), its last axis the neurons of one token,

    activation      x̂ = ∇L(x)                       (…, D)
    layer energy    ⟨x̂, x⟩ − L(x) = L*(x̂)           (…,)     the Legendre transform, at x̂

L is a sum over the last axis only: tokens and samples never mix. β is an inverse temperature (one
over units of x). Values and derivatives stay finite wherever L itself does.

Source: Krotov & Hopfield 2021 (arXiv:2008.06996); Krotov 2021 (arXiv:2107.06446).
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from energydiff.errors import UserError


class Lagrangian(nn.Module, ABC):
    """A convex L with its activation ∇L written out."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """L(x), (…, D) to (…,)."""

    @abstractmethod
    def activation(self, x: Tensor) -> Tensor:
        """x̂ = ∇L(x), like ``x``."""

    def layer_energy(self, x: Tensor) -> Tensor:
        """⟨x̂, x⟩ − L(x), (…, D) to (…,)."""
        return (self.activation(x) * x).sum(-1) - self(x)


class Identity(Lagrangian):
    """L = ½‖x‖², x̂ = x."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x.square().sum(-1)

    def activation(self, x: Tensor) -> Tensor:
        return x


class Repu(Lagrangian):
    """L = (1/n) Σ relu(x)ⁿ, x̂ = relu(x)ⁿ⁻¹; n = 2 is the rectified linear unit."""

    def __init__(self, n: float = 2.0) -> None:
        super().__init__()
        if not n >= 2:
            raise UserError(f"n must be at least 2 for a continuous activation, got {n}.")
        self.n = n

    def forward(self, x: Tensor) -> Tensor:
        return x.relu().pow(self.n).sum(-1) / self.n

    def activation(self, x: Tensor) -> Tensor:
        return x.relu().pow(self.n - 1)


class Exp(Lagrangian):
    """L = (1/β) Σ exp(βx), x̂ = exp(βx)."""

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = positive("beta", beta)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(x).sum(-1) / self.beta

    def activation(self, x: Tensor) -> Tensor:
        return (self.beta * x).exp()


class Rexp(Lagrangian):
    """L = (1/β) Σ exp(r) − r with r = β relu(x), x̂ = exp(r) − 1."""

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = positive("beta", beta)

    def forward(self, x: Tensor) -> Tensor:
        r = self.beta * x.relu()
        return (r.exp() - r).sum(-1) / self.beta

    def activation(self, x: Tensor) -> Tensor:
        return (self.beta * x.relu()).expm1()


class Tanh(Lagrangian):
    """L = (1/β) Σ log cosh βx, x̂ = tanh βx."""

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = positive("beta", beta)

    def forward(self, x: Tensor) -> Tensor:
        # log cosh y = log(1 + e^2y) − y − log 2. With |y| instead, second derivatives vanish at 0.
        y = self.beta * x
        return (-F.logsigmoid(-2 * y) - y - math.log(2)).sum(-1) / self.beta

    def activation(self, x: Tensor) -> Tensor:
        return (self.beta * x).tanh()


class Sigmoid(Lagrangian):
    """L = (1/β) Σ log(1 + e^βx), x̂ = 1/(1 + e^−βx)."""

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = positive("beta", beta)

    def forward(self, x: Tensor) -> Tensor:
        return -F.logsigmoid(-self.beta * x).sum(-1) / self.beta

    def activation(self, x: Tensor) -> Tensor:
        return (self.beta * x).sigmoid()


class Softmax(Lagrangian):
    """L = (1/β) logsumexp(βx), x̂ = softmax(βx)."""

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = positive("beta", beta)

    def forward(self, x: Tensor) -> Tensor:
        return (self.beta * x).logsumexp(-1) / self.beta

    def activation(self, x: Tensor) -> Tensor:
        return (self.beta * x).softmax(-1)


class Ghostmax(Softmax):
    """The softmax of x and one more neuron fixed at 0: L = (1/β) log(1 + Σ e^βx); Σ x̂ < 1."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1)))

    def activation(self, x: Tensor) -> Tensor:
        return super().activation(F.pad(x, (0, 1)))[..., :-1]


class LayerNorm(Lagrangian):
    """L = Dγ √(mean((x − x̄)²) + ε) + δ·x, x̂ = γ (x − x̄)/√(…) + δ, per token.

    Args:
        gamma: one number γ > 0. A scale per neuron would not be a gradient.
        delta: δ, a number or (D,).
        eps: ε > 0, in squared units of x.
    """

    delta: Tensor

    def __init__(self, gamma: float = 1.0, delta: float | Tensor = 0.0, eps: float = 1e-5) -> None:
        super().__init__()
        self.gamma, self.eps = positive("gamma", gamma), positive("eps", eps)
        self.register_buffer("delta", torch.as_tensor(delta))

    def forward(self, x: Tensor) -> Tensor:
        norm = x.shape[-1] * self.gamma * self._std(x).squeeze(-1)
        return norm + (self.delta.to(x) * x).sum(-1)

    def activation(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return self.gamma * centred / self._std(x) + self.delta.to(x)

    def _std(self, x: Tensor) -> Tensor:
        return (x.var(-1, correction=0, keepdim=True) + self.eps).sqrt()


class SphericalNorm(Lagrangian):
    """L = γ √(‖x‖² + ε), x̂ = γ x/√(‖x‖² + ε), per token."""

    def __init__(self, gamma: float = 1.0, eps: float = 1e-5) -> None:
        super().__init__()
        self.gamma, self.eps = positive("gamma", gamma), positive("eps", eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.gamma * (x.square().sum(-1) + self.eps).sqrt()

    def activation(self, x: Tensor) -> Tensor:
        return self.gamma * x / (x.square().sum(-1, keepdim=True) + self.eps).sqrt()


def positive(name: str, value: float) -> float:
    """``value``, or a ``UserError`` that names it."""
    if not 0 < value < math.inf:
        raise UserError(f"{name} must be positive and finite, got {value}.")
    return value
