"""Residual multilayer perceptron, for vectors and very small images."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from energydiff.potentials.backbone import Backbone, Conditioning
from energydiff.potentials.closed_form import gelu, normalise


class MLP(Backbone):
    """Pre-norm residual MLP with scale and shift from the noise and the label.

    Args:
        shape: shape of one sample; flattened inside.
        width: hidden width.
        depth: number of residual blocks.
        num_classes: class labels, 0 for none.
    """

    def __init__(
        self, shape: tuple[int, ...], width: int = 256, depth: int = 3, num_classes: int = 0
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.num_classes = num_classes
        dim = math.prod(self.shape)
        self.conditioning = Conditioning(width, num_classes)
        self.input = nn.Linear(dim, width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(depth))
        self.output = nn.Linear(width, dim, bias=False)
        nn.init.zeros_(self.output.weight)

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        embedding = F.silu(self.conditioning(c, label))
        h = self.input(rearrange(u, "b ... -> b (...)"))
        for block in self.blocks:
            h = block(h, embedding)
        return self.output(normalise(h)).view_as(u)


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 2 * width)
        self.expand = nn.Linear(width, width)
        self.contract = nn.Linear(width, width)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding).chunk(2, dim=-1)
        y = torch.addcmul(shift, normalise(h), 1 + scale)
        return h + self.contract(gelu(self.expand(y)))
