"""What an :class:`~energydiff.potentials.EnergyUNet` is made of, each part with its pullback.

A pullback takes the cotangent of a result to those of what it was made of. All are ordinary
operations; sums happen in place where nothing else holds the result of a convolution.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from energydiff.potentials.backbone import require_divisible
from energydiff.potentials.groupnorm_silu import (
    Saved,
    groupnorm_silu_pullback,
    groupnorm_silu_saving,
)
from energydiff.potentials.token_blocks import Attention, rms_norm, rms_norm_pullback
from energydiff.potentials.unet import groups_of

SHARE = 0.5**0.5  # of a sum of two, which keeps its variance


class Conv(nn.Conv2d):
    """A convolution that keeps the size, with its transpose."""

    def __init__(self, width_in: int, width: int, kernel: int, bias: bool = True) -> None:
        super().__init__(width_in, width, kernel, padding=kernel // 2, bias=bias)

    def pullback(self, grad: Tensor) -> Tensor:
        if self.kernel_size == (1, 1):  # of a small batch PyTorch's transpose makes a copy
            return F.conv2d(grad, self.weight.transpose(0, 1))
        return F.conv_transpose2d(grad, self.weight, padding=self.padding)  # type: ignore[arg-type]


class NormSiLU(nn.Module):
    """silu of GroupNorm, scaled and shifted per channel by noise and label.

    Attributes:
        size: entries of the conditioning vector.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.size, self.groups, self.eps = 2 * channels, groups_of(channels), eps

    def forward(self, x: Tensor, e: Tensor) -> tuple[Tensor, Saved]:
        scale, shift = e.expand(len(x), -1).chunk(2, 1)
        return groupnorm_silu_saving(x, 1 + scale, shift, self.groups, self.eps)

    def pullback(self, grad: Tensor, saved: Saved) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The cotangents of x and of the halves of e."""
        to_x, *halves = groupnorm_silu_pullback(grad, saved)
        return to_x, tuple(halves)


class Block(nn.Module):
    """h' = √½ skip h + conv(silu(norm(conv y))), perhaps attention, y' = silu(norm h').

    Attributes:
        size: entries of the conditioning vector, of both norms.
        readout: the terms of φ on y'.
    """

    def __init__(self, width_in: int, width: int, base: int, head_width: int | None) -> None:
        super().__init__()
        self.first, self.second = Conv(width_in, width, 3), Conv(width, width, 3)
        nn.init.zeros_(self.second.weight)
        self.skip = Conv(width_in, width, 1) if width_in != width else None
        self.attention = _attention(width, head_width) if head_width else None
        self.inner, self.norm = NormSiLU(width), NormSiLU(width)
        self.size = self.inner.size + self.norm.size
        self.readout = Readout(width, base)

    def forward(self, h: Tensor, y: Tensor, e: Tensor) -> tuple[Tensor, Tensor, Any]:
        """h', y', and what ``pullback`` needs."""
        of_inner, of_norm = e.chunk(2, 1)
        inner, saved = self.inner(self.first(y), of_inner)
        h = self.second(inner).add_(h if self.skip is None else self.skip(h), alpha=SHARE)
        attended = None
        if self.attention is not None:
            tokens = h.flatten(2).mT
            z, r = rms_norm(tokens)
            update, kept = self.attention(z, e)
            h, attended = (tokens + update).mT.reshape(h.shape), (z, r, kept)
        y, normed = self.norm(h, of_norm)
        return h, y, (saved, attended, normed)

    def pullback(
        self, to_h: Tensor | None, to_y: Tensor, saved: Any
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """From the cotangents of h', if it goes on, and y' those of h, y and the quarters of e;
        h and h' have √½ of what is handed on as theirs."""
        inner, attended, normed = saved
        grad, of_norm = self.norm.pullback(to_y, normed)
        grad = grad if to_h is None else grad.add_(to_h, alpha=SHARE)
        if self.attention is not None:
            z, r, kept = attended
            tokens = grad.flatten(2).mT
            to_z, _ = self.attention.pullback(tokens, kept)
            grad = (tokens + rms_norm_pullback(to_z, z, r)).mT.reshape(grad.shape)
        to_first, of_inner = self.inner.pullback(self.second.pullback(grad), inner)
        through = grad if self.skip is None else self.skip.pullback(grad)
        return through, self.first.pullback(to_first), (*of_inner, *of_norm)


class Readout(nn.Module):
    """⟨W y, t⟩ + ⟨w, y²⟩, summed over pixels."""

    def __init__(self, width: int, base: int) -> None:
        super().__init__()
        self.inner = Conv(width, base, 1, bias=False)
        nn.init.normal_(self.inner.weight, std=0.1 * width**-0.5)
        self.memory = nn.Parameter(0.02 * torch.randn(width, 1, 1))

    def forward(self, y: Tensor) -> Tensor:
        """The cotangent W y of t."""
        return self.inner(y)

    def memory_term(self, y: Tensor) -> Tensor:
        """⟨w, y²⟩, (B,)."""
        squares = y.square().sum((2, 3), dtype=wide(y))
        return (squares * self.memory.flatten()).sum(1)

    def pullback(self, y: Tensor, t: Tensor) -> Tensor:
        """The cotangent of y."""
        return torch.addcmul(self.inner.pullback(t), self.memory, y, value=2)


def _attention(width: int, head_width: int) -> Attention:
    head_width = min(head_width, width)
    require_divisible("channels", width, "head_width", head_width)
    attention = Attention(width, width // head_width)
    nn.init.zeros_(attention.project)
    return attention


def wide(x: Tensor) -> torch.dtype:
    """In which sums are taken: float32 at least."""
    return torch.promote_types(x.dtype, torch.float32)
