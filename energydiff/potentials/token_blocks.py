"""Residual blocks on tokens, each with its pullback written out.

A block adds an update to the tokens h, computed from their RMS norm y. ``pullback`` is the
transposed Jacobian of the update: the reverse pass through a trunk is then a second forward pass
made of ordinary operations, and the gradient of an energy trains by one ordinary backward.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from energydiff.errors import UserError
from energydiff.potentials.backbone import require_divisible
from energydiff.potentials.closed_form import attend_pullback, attend_saving

EPS = 1e-5


def rms_norm(h: Tensor) -> tuple[Tensor, Tensor]:
    """y = r h with r = 1/√(mean h² + ε) over the last axis, and r."""
    r = torch.rsqrt(h.square().mean(-1, keepdim=True) + EPS)
    return r * h, r


def rms_norm_pullback(grad: Tensor, y: Tensor, r: Tensor) -> Tensor:
    """The cotangent of h from that of y."""
    return r * (grad - y * (grad * y).mean(-1, keepdim=True))


class TokenBlock(nn.Module, ABC):
    """An update of tokens (B, N, width).

    Attributes:
        size: entries of the conditioning vector that the block takes.
    """

    size: int = 0

    @abstractmethod
    def forward(self, y: Tensor, e: Tensor) -> tuple[Tensor, Any]:
        """The update, like y, and what ``pullback`` needs. ``e`` is (B or 1, size)."""

    @abstractmethod
    def pullback(self, grad: Tensor, saved: Any) -> tuple[Tensor, Tensor]:
        """The cotangents of y and of e, (B, size), from that of the update."""


class Convolution(TokenBlock):
    """Depthwise 3×3 over the grid of tokens."""

    def __init__(self, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.kernel = nn.Parameter(0.15 * torch.randn(width, 1, 3, 3))

    def forward(self, y: Tensor, e: Tensor) -> tuple[Tensor, Any]:
        return self._mix(y, self.kernel), None

    def pullback(self, grad: Tensor, saved: Any) -> tuple[Tensor, Tensor]:
        return self._mix(grad, self.kernel.flip(-1, -2)), grad.new_empty(len(grad), 0)

    def _mix(self, y: Tensor, kernel: Tensor) -> Tensor:
        maps = y.mT.unflatten(2, self.grid)
        return F.conv2d(maps, kernel, padding=1, groups=len(kernel)).flatten(2).mT


class FeedForward(TokenBlock):
    """relu²(y A + e) B: twice differentiable, and its pullback needs no more than relu."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.size = hidden
        self.expand = nn.Parameter(torch.randn(width, hidden) * width**-0.5)
        self.contract = nn.Parameter(0.5 * torch.randn(hidden, width) * hidden**-0.5)

    def forward(self, y: Tensor, e: Tensor) -> tuple[Tensor, Any]:
        active = F.relu(y @ self.expand + e[:, None])
        return active.square() @ self.contract, active

    def pullback(self, grad: Tensor, saved: Any) -> tuple[Tensor, Tensor]:
        slope = 2 * (grad @ self.contract.T) * saved
        return slope @ self.expand.T, slope.sum(1)


class Attention(TokenBlock):
    """Multi-head softmax attention, without biases."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        require_divisible("width", width, "heads", heads)
        self.heads = heads
        self.qkv = nn.Parameter(torch.randn(width, 3 * width) * width**-0.5)
        self.project = nn.Parameter(0.5 * torch.randn(width, width) * width**-0.5)

    def forward(self, y: Tensor, e: Tensor) -> tuple[Tensor, Any]:
        heads = rearrange(y @ self.qkv, "b t (n h d) -> n b h t d", n=3, h=self.heads)
        mixed, saved = attend_saving(*heads)
        return rearrange(mixed, "b h t d -> b t (h d)") @ self.project, saved

    def pullback(self, grad: Tensor, saved: Any) -> tuple[Tensor, Tensor]:
        mixed = rearrange(grad @ self.project.T, "b t (h d) -> b h t d", h=self.heads)
        to_heads = torch.stack(attend_pullback(mixed, saved))
        to_y = rearrange(to_heads, "n b h t d -> b t (n h d)") @ self.qkv.T
        return to_y, grad.new_empty(len(grad), 0)


def token_block(
    name: str, width: int, grid: tuple[int, int], heads: int, hidden: int
) -> TokenBlock:
    """The block called ``convolution``, ``feedforward`` or ``attention``."""
    match name:
        case "convolution":
            return Convolution(width, grid)
        case "feedforward":
            return FeedForward(width, hidden)
        case "attention":
            return Attention(width, heads)
    raise UserError(f"a trunk has no block {name!r}: choose convolution, feedforward or attention.")
