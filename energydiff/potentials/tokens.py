"""Patches as tokens, and a residual trunk on them that can be run in reverse."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from energydiff.potentials.backbone import Conditioning, require_divisible, require_image
from energydiff.potentials.token_blocks import (
    TokenBlock,
    rms_norm,
    rms_norm_pullback,
    token_block,
)


class Patches(nn.Module):
    """Samples (B, C, H, W) to patches (B, N, C p²) in raster order, and back.

    Attributes:
        grid: patches down and across. ``size``: numbers in one patch.
    """

    def __init__(self, network: str, shape: tuple[int, ...], patch_size: int) -> None:
        super().__init__()
        require_image(network, shape)
        for side in shape[1:]:
            require_divisible("image size", side, "patch_size", patch_size)
        self.patch_size = patch_size
        self.grid = (shape[1] // patch_size, shape[2] // patch_size)
        self.size = shape[0] * patch_size**2

    def forward(self, u: Tensor) -> Tensor:
        p = self.patch_size
        return rearrange(u, "b c (y p) (x q) -> b (y x) (c p q)", p=p, q=p)

    def join(self, patches: Tensor) -> Tensor:
        p = self.patch_size
        return rearrange(patches, "b (y x) (c p q) -> b c (y p) (x q)", y=self.grid[0], p=p, q=p)


class ConditioningVectors(nn.Module):
    """Noise and label as vectors of given lengths, each (B or 1, length); zero at first."""

    def __init__(self, width: int, num_classes: int, lengths: Sequence[int]) -> None:
        super().__init__()
        self.lengths = list(lengths)
        self.embed = Conditioning(width, num_classes)
        self.vectors = nn.Linear(width, sum(lengths))
        nn.init.zeros_(self.vectors.weight)
        nn.init.zeros_(self.vectors.bias)

    def forward(self, c: Tensor, label: Tensor | None) -> tuple[Tensor, ...]:
        vectors = self.vectors(F.silu(self.embed(c, label)))
        return vectors.split(self.lengths, -1)


class Trunk(nn.Module):
    """h ← h + block(RMS norm of h), block after block."""

    def __init__(
        self,
        names: Sequence[str],
        width: int,
        grid: tuple[int, int],
        heads: int,
        hidden: int,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(token_block(n, width, grid, heads, hidden) for n in names)

    @property
    def sizes(self) -> list[int]:
        """Entries of each block's conditioning vector."""
        return [block.size for block in self._blocks()]

    def forward(self, h: Tensor, conditioning: Sequence[Tensor]) -> tuple[Tensor, list[Any]]:
        """The tokens after the last block, and what ``pullback`` needs."""
        saved = []
        for block, e in zip(self._blocks(), conditioning, strict=True):
            y, r = rms_norm(h)
            update, kept = block(y, e)
            h = h + update
            saved.append((y, r, kept))
        return h, saved

    def pullback(self, grad: Tensor, saved: Sequence[Any]) -> tuple[Tensor, list[Tensor]]:
        """The cotangents of the first tokens and of the conditioning from that of the last."""
        to_conditioning = []
        for block, (y, r, kept) in zip(reversed(self._blocks()), reversed(saved), strict=True):
            to_y, to_e = block.pullback(grad, kept)
            grad = grad + rms_norm_pullback(to_y, y, r)
            to_conditioning.append(to_e)
        return grad, to_conditioning[::-1]

    def _blocks(self) -> list[TokenBlock]:
        return [block for block in self.blocks if isinstance(block, TokenBlock)]


def embed_patches(patch_dim: int, tokens: int, width: int) -> tuple[nn.Parameter, nn.Parameter]:
    """A linear embedding of patches and the positions of tokens, at their first values."""
    embedding = torch.randn(patch_dim, width) * patch_dim**-0.5
    return nn.Parameter(embedding), nn.Parameter(0.5 * torch.randn(tokens, width))
