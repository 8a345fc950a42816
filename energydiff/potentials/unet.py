"""Convolutional U-Net (Ho et al. 2020; Dhariwal & Nichol 2021), twice differentiable."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from energydiff.potentials.backbone import (
    Backbone,
    Conditioning,
    require_divisible,
    require_image,
)
from energydiff.potentials.closed_form import attend
from energydiff.potentials.groupnorm_silu import groupnorm_silu


class UNet(Backbone):
    """Residual blocks with GroupNorm and scale-shift, attention at chosen resolutions.

    Args:
        shape: (C, H, W) of one image; H and W divisible by 2^(levels − 1).
        channels: width of the finest level.
        multipliers: width of each level as a multiple of ``channels``; resolution halves between
            levels.
        blocks: residual blocks per level on the way down (one more on the way up).
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
        require_image("UNet", shape)
        require_levels(shape, len(multipliers))
        self.shape = tuple(shape)
        self.num_classes = num_classes
        widths = [channels * m for m in multipliers]
        embedding = 4 * channels
        resolutions = [shape[1] // 2**level for level in range(len(widths))]

        def stage(width_in: int, width: int, level: int) -> nn.Module:
            attention = resolutions[level] in attention_resolutions
            return _Stage(width_in, width, embedding, head_width if attention else None)

        self.conditioning = Conditioning(embedding, num_classes)
        self.input = nn.Conv2d(shape[0], channels, 3, padding=1)
        skips = [channels]
        width = channels
        self.down = nn.ModuleList()
        for level, level_width in enumerate(widths):
            stages = nn.ModuleList()
            for _ in range(blocks):
                stages.append(stage(width, level_width, level))
                width = level_width
                skips.append(width)
            if level < len(widths) - 1:
                skips.append(width)
            self.down.append(stages)
        self.middle = stage(width, width, len(widths) - 1)
        self.up = nn.ModuleList()
        for level in reversed(range(len(widths))):
            stages = nn.ModuleList()
            for _ in range(blocks + 1):
                stages.append(stage(width + skips.pop(), widths[level], level))
                width = widths[level]
            self.up.append(stages)
        self.output_norm = _AffineNormSiLU(width)
        self.output = nn.Conv2d(width, shape[0], 3, padding=1, bias=False)
        nn.init.zeros_(self.output.weight)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        embedding = F.silu(self.conditioning(c, label))
        h = self.input(u.contiguous(memory_format=torch.channels_last))
        skips = [h]
        for level, stages in enumerate(self.down):
            if level > 0:
                h = F.avg_pool2d(h, 2)
                skips.append(h)
            for stage in stages:  # type: ignore[attr-defined]
                h = stage(h, embedding)
                skips.append(h)
        h = self.middle(h, embedding)
        for level, stages in enumerate(self.up):
            if level > 0:
                h = doubled(h)
            for stage in stages:  # type: ignore[attr-defined]
                h = stage(torch.cat([h, skips.pop()], dim=1), embedding)
        return self.output(self.output_norm(h))


class _Stage(nn.Module):
    """One residual block and, where ``head_width`` is given, self-attention after it."""

    def __init__(self, width_in: int, width: int, embedding: int, head_width: int | None) -> None:
        super().__init__()
        self.norm = _AffineNormSiLU(width_in)
        self.first = nn.Conv2d(width_in, width, 3, padding=1)
        self.groups, self.eps = groups_of(width), self.norm.eps
        self.modulation = nn.Linear(embedding, 2 * width)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        self.skip = nn.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()
        self.attention = _Attention(width, head_width) if head_width else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding).expand(x.shape[0], -1).chunk(2, dim=1)
        h = self.first(self.norm(x))
        h = self.second(groupnorm_silu(h, 1 + scale, shift, self.groups, self.eps))
        h = (self.skip(x) + h) * 0.5**0.5
        return h if self.attention is None else self.attention(h)


class _AffineNormSiLU(nn.Module):
    """silu of an ordinary GroupNorm with a learned scale and shift per channel."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.groups, self.eps = groups_of(channels), eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        weight, bias = self.weight.expand(batch, -1), self.bias.expand(batch, -1)
        return groupnorm_silu(x, weight, bias, self.groups, self.eps)


class _Attention(nn.Module):
    def __init__(self, channels: int, head_width: int) -> None:
        super().__init__()
        self.head_width = min(head_width, channels)
        require_divisible("channels", channels, "head_width", self.head_width)
        self.norm = nn.GroupNorm(groups_of(channels), channels)
        # No biases: a bias on the keys cancels in the softmax and would never get a gradient.
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.projection = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.projection.weight)

    def forward(self, x: Tensor) -> Tensor:
        heads = rearrange(
            self.qkv(self.norm(x)), "b (n h d) y x -> n b h (y x) d", n=3, d=self.head_width
        )
        mixed = rearrange(attend(*heads), "b h (y x) d -> b (h d) y x", y=x.shape[2])
        return (x + self.projection(mixed)) * 0.5**0.5


def doubled(x: Tensor) -> Tensor:
    """Every pixel of x (B, C, H, W) as 2 × 2 of them."""
    if torch.compiler.is_compiling():
        # Of interpolate a compiler makes an indexing, whose gradient is a scatter into zeros: of
        # PyTorch 2.13, inductor may read those zeros before anything is added to them. The
        # gradient of repeating is a sum.
        return x.movedim(1, 3).repeat_interleave(2, 1).repeat_interleave(2, 2).movedim(3, 1)
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def require_levels(shape: tuple[int, ...], levels: int) -> None:
    """``UserError`` unless so many levels, each of half the resolution, divide an image's sides."""
    for size in shape[1:]:
        require_divisible(
            "image size", size, f"2^(levels - 1) of {levels} levels:", 2 ** (levels - 1)
        )


def groups_of(channels: int) -> int:
    """At most 32 groups of at least four channels; whatever divides the channel count."""
    most = max(1, min(32, channels // 4))
    return next(g for g in range(most, 0, -1) if channels % g == 0)
