"""The training set itself as an energy: the memory that a diffusion model generalises from.

With p0 the uniform distribution on K points y_i,

    V(x, σ) = −σ² log (1/K) Σ_i exp(−‖x − y_i‖² / 2σ²)

is the log-sum-exp (modern Hopfield) energy at inverse temperature 1/σ², and its denoiser is the
softmax average D = Σ w_i y_i. It is what denoising score matching converges to with unlimited
capacity, and an oracle for everything a learned energy claims.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from energydiff.energies.base import Energy
from energydiff.errors import UserError


class EmpiricalData(Energy):
    """Exact energy of a finite data set at any σ, streamed over chunks of it.

    Distances are taken in float64 by matrix products: in float32 the cancellation in
    ‖x‖² − 2⟨x, y⟩ + ‖y‖² would cost tenths of a nat at σ = 0.02. Memory beyond the data set is
    O((B + chunk) · d + B · chunk) for the energy, its gradient and the denoiser.

    Args:
        data: the K points, (K, \\*shape), floating point.
        chunk: points per chunk.
    """

    exact = True
    data: Tensor

    def __init__(self, data: Tensor, chunk: int = 1024) -> None:
        super().__init__()
        data = torch.as_tensor(data)
        if data.ndim < 2 or data.shape[0] == 0 or not data.is_floating_point():
            raise UserError(
                "data must be floating point of shape (K, *shape) with K >= 1, got"
                f" {tuple(data.shape)} {data.dtype}."
            )
        self.shape = tuple(data.shape[1:])
        self.chunk = chunk
        self.register_buffer("data", data)

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        sigma = sigma.to(_float64_or_widest(x))
        if x.requires_grad or sigma.requires_grad:
            parts = [torch.logsumexp(logits, 1) for logits, _ in self._log_kernels(x, sigma)]
            log_sum = torch.logsumexp(torch.stack(parts), 0)
        else:
            log_sum, _ = self._posterior(x, sigma, mean=False)
        return (self._constant(sigma) - log_sum).to(x.dtype)

    def gradient(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """E and ∇E = (x − D)/σ², without a graph unless ``x`` requires one."""
        if x.requires_grad:
            return super().gradient(x, sigma, label)
        wide = sigma.to(_float64_or_widest(x))
        log_sum, mean = self._posterior(x, wide, mean=True)
        assert mean is not None
        grad = (x.flatten(1).to(wide.dtype) - mean) / wide[:, None] ** 2
        return (self._constant(wide) - log_sum).to(x.dtype), grad.view_as(x).to(x.dtype)

    def third_derivative_bound(self, sigma: Tensor) -> Tensor:
        """∇³V = −κ₃/σ⁴, the third cumulant of w; along any line w lies within the diameter Δ of the
        data, so that |κ₃| ≤ Δ³/(6√3) (of two values, which is the extreme)."""
        centre = self.data.flatten(1).double().mean(0)
        # At most twice the largest distance from the centre, and computed in O(K).
        diameter = 2 * (self.data.flatten(1).double() - centre).norm(dim=1).amax()
        return diameter**3 / (6 * math.sqrt(3)) / sigma.double() ** 4

    def _constant(self, sigma: Tensor) -> Tensor:
        return math.log(len(self.data)) + 0.5 * self.dim * torch.log(2 * math.pi * sigma**2)

    def _log_kernels(self, x: Tensor, sigma: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Per chunk: −‖x − y‖²/2σ² (B, chunk) and the points y (chunk, d), in wide precision."""
        x = x.flatten(1).to(sigma.dtype)
        for points in self.data.split(self.chunk):
            y = points.flatten(1).to(sigma.dtype)
            # Not a sum of squares, which are written down first: that took longer than x @ y.T.
            norms = torch.linalg.vector_norm(y, dim=1).square()
            squared = x.square().sum(1, keepdim=True) + norms - 2 * x @ y.T
            yield -squared / (2 * sigma[:, None] ** 2), y

    def _posterior(self, x: Tensor, sigma: Tensor, *, mean: bool) -> tuple[Tensor, Tensor | None]:
        """log Σ exp(kernel) (B,) and, if asked, the posterior mean (B, d), by a running softmax."""
        top = torch.full_like(sigma, -torch.inf)
        total = torch.zeros_like(sigma)
        nearest = torch.zeros(len(x), self.dim).to(total)
        weighted = sigma.new_zeros(len(x), self.dim) if mean else None
        for logits, y in self._log_kernels(x, sigma):
            highest, index = logits.max(1)
            nearest = torch.where((highest > top)[:, None], y[index], nearest)
            new_top = torch.maximum(top, highest)
            rescale = (top - new_top).exp()
            weights = (logits - new_top[:, None]).exp()
            total = total * rescale + weights.sum(1)
            if weighted is not None:
                weighted = weighted * rescale[:, None] + weights @ y
            top = new_top
        # The nearest point's distance once more, by differences: next to a stored point it is all
        # there is to V, and the matrix product has rounded it by ‖x‖².
        squared = (x.flatten(1).to(nearest) - nearest).square().sum(1)
        log_sum = total.log() - squared / (2 * sigma**2)
        return log_sum, None if weighted is None else weighted / total[:, None]

    def extra_repr(self) -> str:
        return f"points={len(self.data)}, shape={self.shape}"


def _float64_or_widest(x: Tensor) -> torch.dtype:
    """float64 where the device of x has it."""
    return torch.float32 if x.device.type == "mps" else torch.float64
