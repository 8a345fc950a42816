"""Memories of binary patterns ±1: one neuron at a time takes the sign that lowers H.

A sweep visits all neurons in order; each flip lowers H and a tie leaves the neuron alone, so H
never rises and a sweep without a flip is a fixed point. Real states start from their signs.
"""

from abc import abstractmethod

import torch
from torch import Tensor

from energydiff.errors import UserError
from energydiff.memory.base import Memory
from energydiff.memory.lagrangians import positive


class BinaryMemory(Memory):
    """H depends on x through linear signals s = xP; a flip adds a multiple of a row of P."""

    def check_patterns(self, patterns: Tensor) -> None:
        if not bool((patterns.abs() == 1).all()):
            raise UserError(f"{type(self).__name__} stores patterns of -1 and +1 only.")

    @abstractmethod
    def projection(self, like: Tensor) -> Tensor:
        """P, (d, signals), in the dtype of ``like``."""

    @abstractmethod
    def field(self, signals: Tensor, own: Tensor, row: Tensor, i: int) -> Tensor:
        """A positive multiple of H(x_i = −1) − H(x_i = +1), (B,).

        ``signals`` (B, signals) and ``own`` = x_i (B,) are of the present state, ``row`` = P_i.
        """

    def start(self, x: Tensor) -> Tensor:
        return torch.where(x < 0, -1.0, 1.0).to(x)

    def fields(self, x: Tensor) -> Tensor:
        """The field at every neuron of one state, (B, d); its sign is one parallel step."""
        projection = self.projection(x)
        signals = x @ projection
        fields = [self.field(signals, x[:, i], row, i) for i, row in enumerate(projection)]
        return torch.stack(fields, 1)

    def update(self, x: Tensor, held: Tensor) -> Tensor:
        x, projection = x.clone(), self.projection(x)
        signals = x @ projection
        for i, row in enumerate(projection):
            own = x[:, i].clone()
            field = self.field(signals, own, row, i)
            x[:, i] = torch.where(held[:, i] | (field == 0), own, field.sign())
            signals = signals + (x[:, i] - own)[:, None] * row
        return x


class PolynomialMemory(BinaryMemory):
    """Dense associative memory of order n ≥ 2, H = −d Σ_k (ξ_k·x/d)ⁿ.

    With K random patterns stored, one parallel step from one of them gets a share
    ½ erfc √(d^(n−1)/(2K(2n−3)!!)) of its bits wrong.

    Source: Krotov & Hopfield 2016 (arXiv:1606.01164). The factor d^(n−1), which changes no flip,
    keeps H of order d.
    """

    def __init__(self, n: int = 3) -> None:
        super().__init__()
        if not (isinstance(n, int) and n >= 2):
            raise UserError(f"n must be an integer of at least 2, got {n}.")
        self.n = n

    def hamiltonian(self, x: Tensor) -> Tensor:
        return -self.dim * self._power(x @ self.projection(x))

    def projection(self, like: Tensor) -> Tensor:
        return self.rows(like).T

    def field(self, signals: Tensor, own: Tensor, row: Tensor, i: int) -> Tensor:
        others = signals - own[:, None] * row
        return self._power(others + row) - self._power(others - row)

    def _power(self, overlaps: Tensor) -> Tensor:
        return (overlaps / self.dim).pow(self.n).sum(1)


class ExponentialMemory(BinaryMemory):
    """Exponential dense memory, H = −(1/β) log Σ_k exp(β ξ_k·x).

    The published energy is −Σ exp(ξ·x); its logarithm orders all states alike, makes the same flips
    at β = 1, and does not overflow.

    Source: Demircigil et al. 2017 (arXiv:1702.01929).
    """

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = positive("beta", beta)

    def hamiltonian(self, x: Tensor) -> Tensor:
        return -self._soft_maximum(x @ self.projection(x))

    def projection(self, like: Tensor) -> Tensor:
        return self.rows(like).T

    def field(self, signals: Tensor, own: Tensor, row: Tensor, i: int) -> Tensor:
        others = signals - own[:, None] * row
        return self._soft_maximum(others + row) - self._soft_maximum(others - row)

    def _soft_maximum(self, overlaps: Tensor) -> Tensor:
        return (self.beta * overlaps).logsumexp(1) / self.beta
