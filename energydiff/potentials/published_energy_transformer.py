"""The Energy Transformer block as published (Hoover et al. 2023), stacked: φ = −Σ_l a_l E_l(t).

Each E_l is an energy layer norm, an attention energy and a memory energy with unit weights, on the
same tokens t of an image. A sum of such energies is as wide as it is long, not deep: see
:class:`~energydiff.potentials.EnergyTransformer` for the one that trains best.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from energydiff.potentials.backbone import require_divisible
from energydiff.potentials.energy_block import EnergyTransformerBlock
from energydiff.potentials.energy_terms import MemoryActivation
from energydiff.potentials.token_scalar import TokenScalar
from energydiff.potentials.tokens import Patches

FIRST_SCALE = 0.1  # of a_l: the score of untrained blocks is small beside its target of 1


class PublishedEnergyTransformer(TokenScalar):
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
        require_divisible("width", width, "heads", heads)
        self.shape, self.num_classes = tuple(shape), num_classes
        self.blocks = nn.ModuleList(
            EnergyTransformerBlock(
                width, heads, width // heads, memory_ratio * width, activation, self_excluded
            )
            for _ in range(depth)
        )
        self.log_scale = nn.Parameter(torch.full((depth,), math.log(FIRST_SCALE)))
        patches = Patches(type(self).__name__, shape, patch_size)
        self.embed(patches, width, [depth, *(block.size for block in self._blocks())])

    def token_value(self, t: Tensor, e: Sequence[Tensor]) -> Tensor:
        energies = [block(t, e_block) for block, e_block in zip(self._blocks(), e[1:], strict=True)]
        return -((self.log_scale + e[0]).exp() * torch.stack(energies, 1)).sum(1)

    def token_pull(self, t: Tensor, e: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        scales = (self.log_scale + e[0]).exp()
        to_t = torch.zeros_like(t)
        to_scales, to_blocks = [], []
        for block, scale, e_block in zip(self._blocks(), scales.unbind(1), e[1:], strict=True):
            energy, grad, to_e = block.value_and_grads(t, e_block)
            to_t = to_t - scale[:, None, None] * grad
            to_scales.append(-scale * energy)
            to_blocks.append(-scale[:, None] * to_e)
        to_scale = torch.stack(to_scales, 1)
        return to_scale.sum(1), to_t, [to_scale, *to_blocks]

    def _blocks(self) -> list[EnergyTransformerBlock]:
        return [block for block in self.blocks if isinstance(block, EnergyTransformerBlock)]
