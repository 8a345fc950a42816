"""The trunk of an Energy Transformer with a linear readout: its unconstrained counterpart."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from energydiff.potentials.backbone import Backbone
from energydiff.potentials.token_blocks import rms_norm
from energydiff.potentials.tokens import ConditioningVectors, Patches, Trunk, embed_patches


class TokenNetwork(Backbone):
    """Tokens, residual blocks, a linear readout.

    Args:
        shape: (C, H, W) of one image.
        patch_size: side of a patch in pixels; divides H and W.
        width: token width.
        trunk: the blocks in turn: ``convolution``, ``feedforward`` or ``attention``.
        heads: attention heads; divides ``width``.
        hidden_ratio: hidden width of ``feedforward`` as a multiple of ``width``.
        num_classes: class labels, 0 for none.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        patch_size: int = 2,
        width: int = 64,
        trunk: Sequence[str] = ("convolution", "feedforward") * 2,
        heads: int = 4,
        hidden_ratio: int = 4,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        self.shape, self.num_classes = tuple(shape), num_classes
        self.patches = Patches("TokenNetwork", shape, patch_size)
        grid = self.patches.grid
        self.trunk = Trunk(trunk, width, grid, heads, hidden_ratio * width)
        self.embedding, self.positions = embed_patches(self.patches.size, math.prod(grid), width)
        self.conditioning = ConditioningVectors(width, num_classes, [width, *self.trunk.sizes])
        self.readout = nn.Parameter(torch.zeros(width, self.patches.size))

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        first, *rest = self.conditioning(c, label)
        t = self.patches(u) @ self.embedding + self.positions + first[:, None]
        h, _ = self.trunk(t, rest)
        return self.patches.join(rms_norm(h)[0] @ self.readout)
