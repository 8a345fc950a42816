"""Half a U-Net as an energy: an encoder read out at every level, whose reverse pass is the decoder.

With t a convolution of the image, t_l its average pool at level l and y = silu(GroupNorm(h)) the
state after a residual block of the encoder,

    φ = Σ_blocks Σ_pixels ⟨W y, t_l⟩ + ⟨w, y²⟩

an inner product and a memory term. ∇φ runs back up through all levels, and what a level is read out
with enters there as a skip connection would: the gradient of half a U-Net is a U-Net. All of it is
written out with ordinary operations: training is one ordinary backward.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from energydiff.potentials.backbone import require_divisible, require_image
from energydiff.potentials.conditioned_scalar import ConditionedScalar
from energydiff.potentials.groupnorm_silu import (
    Saved,
    groupnorm_silu_pullback,
    groupnorm_silu_saving,
)
from energydiff.potentials.token_blocks import Attention, rms_norm, rms_norm_pullback
from energydiff.potentials.unet import groups_of, require_levels

SHARE = 0.5**0.5  # of a sum of two, which keeps its variance


class EnergyUNet(ConditionedScalar):
    """The encoder of a U-Net, read out after every block.

    Args:
        shape: (C, H, W) of one image; H and W divisible by 2^(levels − 1).
        channels: width of the finest level.
        multipliers: width of each level as a multiple of ``channels``; resolution halves between
            levels.
        blocks: residual blocks per level.
        attention_resolutions: image heights at which each block is followed by self-attention;
            a height that no level has is passed over.
        head_width: channels per attention head.
        num_classes: class labels, 0 for none.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        channels: int = 64,
        multipliers: tuple[int, ...] = (1, 2, 2),
        blocks: int = 2,
        attention_resolutions: tuple[int, ...] = (),
        head_width: int = 32,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        require_image("EnergyUNet", shape)
        require_levels(shape, len(multipliers))
        self.shape, self.num_classes = tuple(shape), num_classes
        self.input = _Conv(shape[0], channels, 3)
        self.start = _NormSiLU(channels)
        self.levels = nn.ModuleList()
        width = channels
        for level, multiplier in enumerate(multipliers):
            attention = head_width if shape[1] // 2**level in attention_resolutions else None
            of_level = nn.ModuleList()
            for _ in range(blocks):
                of_level.append(_Block(width, channels * multiplier, channels, attention))
                width = channels * multiplier
            self.levels.append(of_level)
        self.condition(4 * channels, [block.size for block in self.blocks()])
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def blocks(self) -> list["_Block"]:
        """All of them, from the finest level."""
        return [block for level in self.levels for block in _blocks(level)]

    def value(self, u: Tensor, e: Sequence[Tensor]) -> Tensor:
        return self._ascend(u, e)[0]

    def pull(self, u: Tensor, e: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        phi, levels, first = self._ascend(u, e)
        to_h, to_y, to_t = (torch.zeros_like(x) for x in (levels[-1].h, levels[-1].h, levels[-1].t))
        to_e = []
        for level in reversed(levels):
            if level is not levels[-1]:
                to_h, to_y, to_t = map(_unpool, (to_h, to_y, to_t))
            for block, saved, weighted in reversed(level.passed):
                to_y = to_y + block.readout.pullback(level.t, weighted)
                to_h, to_y, to_vector = block.pullback(to_h, to_y, saved)
                to_e.append(to_vector)
            to_t = to_t + level.to_t
        to_h = to_h + self.start.pullback(to_y, first)
        return phi, self.input.pullback(to_h + to_t), to_e[::-1]

    def _ascend(self, u: Tensor, e: Sequence[Tensor]) -> tuple[Tensor, list["_Passed"], Saved]:
        """φ, what every level keeps for the reverse pass, and what the first norm does."""
        t = h = self.input(u.contiguous(memory_format=torch.channels_last))
        y, first = self.start(h)
        phi, levels, vectors = [], [], iter(e)
        for depth, blocks in enumerate(self.levels):
            if depth:
                h, y, t = (F.avg_pool2d(x, 2) for x in (h, y, t))
            passed, to_t = [], torch.zeros_like(t)
            for block in _blocks(blocks):
                h, y, saved = block(h, y, next(vectors))
                memory, read, weighted = block.readout(y)
                phi.append(memory)
                to_t = to_t + read
                passed.append((block, saved, weighted))
            phi.append(_dot(to_t, t))
            levels.append(_Passed(h, t, to_t, passed))
        return torch.stack(phi).sum(0), levels, first


@dataclass(frozen=True)
class _Passed:
    """A level on the way up: its last state h, its t, ∂φ/∂t, and each block with what it keeps and
    its weighted state w y."""

    h: Tensor
    t: Tensor
    to_t: Tensor
    passed: list[tuple["_Block", Any, Tensor]]


class _Conv(nn.Conv2d):
    """A convolution that keeps the size, with its transpose."""

    def __init__(self, width_in: int, width: int, kernel: int, bias: bool = True) -> None:
        super().__init__(width_in, width, kernel, padding=kernel // 2, bias=bias)

    def pullback(self, grad: Tensor) -> Tensor:
        return F.conv_transpose2d(grad, self.weight, padding=self.padding)  # type: ignore[arg-type]


class _NormSiLU(nn.Module):
    """silu of GroupNorm with a learned scale and shift per channel."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.groups, self.eps = groups_of(channels), eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        weight, bias = (p.expand(len(x), -1) for p in (self.weight, self.bias))
        return groupnorm_silu_saving(x, weight, bias, self.groups, self.eps)

    def pullback(self, grad: Tensor, saved: Any) -> Tensor:
        return groupnorm_silu_pullback(grad, saved)[0]


class _Block(nn.Module):
    """h' = (skip h + conv(silu(norm(conv y))))/√2, perhaps attention, y' = silu(norm h').

    Attributes:
        size: entries of the conditioning vector, the scale and shift of the inner norm.
        readout: the terms of φ on y'.
    """

    def __init__(self, width_in: int, width: int, base: int, head_width: int | None) -> None:
        super().__init__()
        self.size, self.groups = 2 * width, groups_of(width)
        self.first, self.second = _Conv(width_in, width, 3), _Conv(width, width, 3)
        nn.init.zeros_(self.second.weight)
        self.skip = _Conv(width_in, width, 1) if width_in != width else None
        self.attention = _attention(width, head_width) if head_width else None
        self.norm = _NormSiLU(width)
        self.readout = _Readout(width, base)

    def forward(self, h: Tensor, y: Tensor, e: Tensor) -> tuple[Tensor, Tensor, Any]:
        """h', y', and what ``pullback`` needs."""
        scale, shift = e.expand(len(h), -1).chunk(2, 1)
        inner, saved = groupnorm_silu_saving(
            self.first(y), 1 + scale, shift, self.groups, self.norm.eps
        )
        h = SHARE * ((h if self.skip is None else self.skip(h)) + self.second(inner))
        attended = None
        if self.attention is not None:
            tokens = h.flatten(2).mT
            z, r = rms_norm(tokens)
            update, kept = self.attention(z, e)
            h, attended = (tokens + update).mT.reshape(h.shape), (z, r, kept)
        y, normed = self.norm(h)
        return h, y, (saved, attended, normed)

    def pullback(self, to_h: Tensor, to_y: Tensor, saved: Any) -> tuple[Tensor, Tensor, Tensor]:
        """The cotangents of h, y and e from those of h' and y'."""
        inner, attended, normed = saved
        grad = to_h + self.norm.pullback(to_y, normed)
        if self.attention is not None:
            z, r, kept = attended
            tokens = grad.flatten(2).mT
            to_z, _ = self.attention.pullback(tokens, kept)
            grad = (tokens + rms_norm_pullback(to_z, z, r)).mT.reshape(grad.shape)
        grad = SHARE * grad
        to_first, *to_e = groupnorm_silu_pullback(self.second.pullback(grad), inner)
        through = grad if self.skip is None else self.skip.pullback(grad)
        return through, self.first.pullback(to_first), torch.cat(to_e, 1)


class _Readout(nn.Module):
    """⟨W y, t⟩ + ⟨w, y²⟩, summed over pixels."""

    def __init__(self, width: int, base: int) -> None:
        super().__init__()
        self.inner = _Conv(width, base, 1, bias=False)
        nn.init.normal_(self.inner.weight, std=0.1 * width**-0.5)
        self.memory = nn.Parameter(0.02 * torch.randn(width, 1, 1))

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """⟨w, y²⟩, the cotangent W y of t, and w y."""
        weighted = self.memory * y
        return _dot(weighted, y), self.inner(y), weighted

    def pullback(self, t: Tensor, weighted: Tensor) -> Tensor:
        """The cotangent of y."""
        return torch.add(self.inner.pullback(t), weighted, alpha=2)


def _attention(width: int, head_width: int) -> Attention:
    head_width = min(head_width, width)
    require_divisible("channels", width, "head_width", head_width)
    attention = Attention(width, width // head_width)
    nn.init.zeros_(attention.project)
    return attention


def _blocks(level: nn.Module) -> list[_Block]:
    return [block for block in level.children() if isinstance(block, _Block)]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Of each sample, (B,), summed in float32 at least."""
    return (a * b).flatten(1).sum(1, dtype=torch.promote_types(a.dtype, torch.float32))


def _unpool(grad: Tensor) -> Tensor:
    """The transpose of an average pool over 2 × 2."""
    return F.interpolate(0.25 * grad, scale_factor=2.0, mode="nearest")
