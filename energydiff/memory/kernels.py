"""Memories of real patterns: a sum of kernels, one on each pattern, and its mean shift."""

import torch
from torch import Tensor

from energydiff.memory.base import Memory
from energydiff.memory.lagrangians import positive


class LogSumExpMemory(Memory):
    """Modern Hopfield memory, H = ½‖x‖² − (1/β) logsumexp_k(β ξ_k·x).

    The update x' = Σ softmax(βξx)_k ξ_k = x − ∇H is attention. The logsumexp is convex, so H falls
    by at least ½‖x − x'‖² (concave-convex procedure). With M = max‖ξ‖ and the separation
    Δ_k = ‖ξ_k‖² − max_{j≠k} ξ_k·ξ_j, one update from x lands within
    2M(K − 1) exp(−β(Δ_k − 2M‖x − ξ_k‖)) of ξ_k.

    For patterns of one norm M it is :class:`EmpiricalData`'s V at σ² = 1/β, less ½M² + (1/β) log K.

    Args:
        beta: β, one over squared units of x.

    Source: Ramsauer et al. 2021 (arXiv:2008.02217).
    """

    promise = 1.0

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = positive("beta", beta)

    def hamiltonian(self, x: Tensor) -> Tensor:
        logits = self.beta * x @ self.rows(x).T
        return 0.5 * x.square().sum(1) - logits.logsumexp(1) / self.beta

    def update(self, x: Tensor, held: Tensor) -> Tensor:
        patterns = self.rows(x)
        return torch.where(held, x, (self.beta * x @ patterns.T).softmax(1) @ patterns)


class EpanechnikovMemory(Memory):
    """Log-sum-relu memory, H = −(1/β) log(ε + Σ_k relu(1 − (β/2)‖x − ξ_k‖²)).

    A pattern reaches no further than √(2/β): beyond the reach of all, H is flat and x stays where
    it is; a pattern alone within reach is retrieved exactly, in one update. The update x' is the
    mean of the patterns within reach. It maximises the sum of their kernels, and kernels that come
    into reach only add, so H never rises.

    Args:
        beta: β, one over squared units of x.
        epsilon: ε > 0, keeps H finite.

    Source: Hoover et al. 2025 (arXiv:2506.10801); the update is mean shift.
    """

    def __init__(self, beta: float = 1.0, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.beta, self.epsilon = positive("beta", beta), positive("epsilon", epsilon)

    def hamiltonian(self, x: Tensor) -> Tensor:
        return -(self.epsilon + self._kernels(x).sum(1)).log() / self.beta

    def update(self, x: Tensor, held: Tensor) -> Tensor:
        within = (self._kernels(x) > 0).to(x.dtype)
        count = within.sum(1, keepdim=True)
        mean = within @ self.rows(x) / count.clamp(min=1)
        return torch.where(held | (count == 0), x, mean)

    def _kernels(self, x: Tensor) -> Tensor:
        """relu(1 − (β/2)‖x − ξ_k‖²), (B, K)."""
        patterns = self.rows(x)
        squared = x.square().sum(1, keepdim=True) + patterns.square().sum(1) - 2 * x @ patterns.T
        return (1 - 0.5 * self.beta * squared).relu()
