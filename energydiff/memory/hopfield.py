"""The classic Hopfield memories, binary and continuous, by Hebb's rule or the pseudo-inverse.

With K patterns ξ (K, d),

    Hebb             W = ξᵀξ/d               recalls up to K ≈ 0.138 d random patterns, nearly
    pseudo-inverse   W = ξ⁺ξ, a projection   keeps up to d independent patterns where they are

Source: Hopfield 1982, 1984; Personnaz et al. 1985; Amit et al. 1985 (the load 0.138).
"""

from typing import Literal, Self

import torch
from torch import Tensor

from energydiff.errors import UserError
from energydiff.memory.base import Memory
from energydiff.memory.binary import BinaryMemory
from energydiff.memory.lagrangians import positive

Rule = Literal["hebb", "pseudo-inverse"]


def hopfield_weights(patterns: Tensor, rule: Rule) -> Tensor:
    """W (d, d), symmetric without negative eigenvalues, in float64; patterns (K, \\*shape)."""
    rows = patterns.flatten(1).double()
    if rule == "hebb":
        return rows.T @ rows / rows.shape[1]
    if rule == "pseudo-inverse":
        weights = torch.linalg.pinv(rows) @ rows
        return 0.5 * (weights + weights.T)
    raise UserError(f"rule must be hebb or pseudo-inverse, got {rule}.")


class BinaryHopfield(BinaryMemory):
    """H = −½ xᵀWx over x = ±1, the diagonal of W set to 0."""

    weights: Tensor

    def __init__(self, rule: Rule = "hebb") -> None:
        super().__init__()
        self.rule: Rule = rule
        self.register_buffer("weights", torch.empty(0), persistent=False)

    def store(self, patterns: Tensor) -> Self:
        super().store(patterns)
        self.weights = hopfield_weights(self.patterns, self.rule).fill_diagonal_(0)
        return self

    def hamiltonian(self, x: Tensor) -> Tensor:
        return -0.5 * (x @ self.projection(x) * x).sum(1)

    def projection(self, like: Tensor) -> Tensor:
        return self.weights.to(like)

    def field(self, signals: Tensor, own: Tensor, row: Tensor, i: int) -> Tensor:
        return signals[:, i]


class ContinuousHopfield(Memory):
    """H = −½ xᵀWx + (1/R) Σ_i ∫₀^{x_i} g⁻¹ over −1 ≤ x ≤ 1, with g = tanh.

    The update x' = g(RWx). W keeps its diagonal, so −½ xᵀWx is concave and H never rises.

    Args:
        gain: R > 0; patterns appear once it exceeds one over an eigenvalue of W (1 for the
            pseudo-inverse), and become binary as it grows.
        rule: how patterns are stored.
    """

    weights: Tensor

    def __init__(self, gain: float = 4.0, rule: Rule = "hebb") -> None:
        super().__init__()
        self.gain, self.rule = positive("gain", gain), rule
        self.register_buffer("weights", torch.empty(0), persistent=False)

    def check_patterns(self, patterns: Tensor) -> None:
        if not bool((patterns.abs() <= 1).all()):
            raise UserError("ContinuousHopfield stores patterns between -1 and 1 only.")

    def store(self, patterns: Tensor) -> Self:
        super().store(patterns)
        self.weights = hopfield_weights(self.patterns, self.rule)
        return self

    def hamiltonian(self, x: Tensor) -> Tensor:
        # ∫₀ˣ artanh = ½[(1+x) log(1+x) + (1−x) log(1−x)], finite at ±1
        integral = 0.5 * (torch.xlogy(1 + x, 1 + x) + torch.xlogy(1 - x, 1 - x)).sum(1)
        return integral / self.gain - 0.5 * (x @ self.weights.to(x) * x).sum(1)

    def update(self, x: Tensor, held: Tensor) -> Tensor:
        return torch.where(held, x, (self.gain * x @ self.weights.to(x)).tanh())

    def start(self, x: Tensor) -> Tensor:
        return x.clamp(-1, 1)
