"""The Energy Transformer block as published (Hoover et al. 2023), stacked: φ = −Σ_l a_l E_l(t).

Each E_l is an energy layer norm, an attention energy and a memory energy with unit weights, on the
same tokens t of an image. A sum of such energies is as wide as it is long, not deep: see
:class:`~energydiff.potentials.EnergyTransformer` for the one that trains best.
"""

import math

import torch
from torch import Tensor, nn

from energydiff.potentials.backbone import ScalarNetwork, require_divisible
from energydiff.potentials.energy_block import EnergyTransformerBlock
from energydiff.potentials.energy_terms import MemoryActivation
from energydiff.potentials.tokens import ConditioningVectors, Patches, embed_patches

FIRST_SCALE = 0.1  # of a_l: the score of untrained blocks is small beside its target of 1


class PublishedEnergyTransformer(ScalarNetwork):
    """Published blocks whose summed energy is a potential.

    Noise and label enter as token biases, as β of each head, as memory biases and as the positive
    factor a of each block: everything that leaves the sum one scalar.

    Args:
        shape: (C, H, W) of one image.
        patch_size: side of a patch in pixels; divides H and W.
        width: token width.
        depth: number of blocks.
        heads: attention heads; divides ``width``.
        memory_ratio: memories of a block, as a multiple of ``width``.
        activation: of the memories, ``relu2`` or ``softmax``.
        self_excluded: no token attends to itself.
        num_classes: class labels, 0 for none.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        patch_size: int = 2,
        width: int = 64,
        depth: int = 4,
        heads: int = 4,
        memory_ratio: int = 4,
        activation: MemoryActivation = "relu2",
        self_excluded: bool = False,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        self.shape, self.num_classes = tuple(shape), num_classes
        self.patches = Patches("PublishedEnergyTransformer", shape, patch_size)
        require_divisible("width", width, "heads", heads)
        self.blocks = nn.ModuleList(
            EnergyTransformerBlock(
                width, heads, width // heads, memory_ratio * width, activation, self_excluded
            )
            for _ in range(depth)
        )
        self.log_scale = nn.Parameter(torch.full((depth,), math.log(FIRST_SCALE)))
        tokens = math.prod(self.patches.grid)
        self.embedding, self.positions = embed_patches(self.patches.size, tokens, width)
        sizes = [block.size for block in self._blocks()]
        self.conditioning = ConditioningVectors(width, num_classes, [width, depth, *sizes])

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        return self.value_and_grad(u, c, label)[0]

    def value_and_grad(
        self, u: Tensor, c: Tensor, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        first, log_scale, *rest = self.conditioning(c, label)
        t = self.patches(u) @ self.embedding + self.positions + first[:, None]
        scales = (self.log_scale + log_scale).exp().unbind(1)
        phi, to_t = torch.zeros(len(u), device=u.device), torch.zeros_like(t)
        for block, scale, e in zip(self._blocks(), scales, rest, strict=True):
            energy, grad = block.value_and_grad(t, e)
            phi, to_t = phi - scale * energy, to_t - scale[:, None, None] * grad
        return phi, self.patches.join(to_t @ self.embedding.T)

    def _blocks(self) -> list[EnergyTransformerBlock]:
        return [block for block in self.blocks if isinstance(block, EnergyTransformerBlock)]
