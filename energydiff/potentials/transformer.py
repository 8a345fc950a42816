"""Diffusion transformer (Peebles & Xie 2023): patches, adaLN-Zero on noise and label."""

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
from energydiff.potentials.closed_form import attend, gelu, normalise


class Transformer(Backbone):
    """DiT on square patches, with its initialisation: every block starts as the identity.

    Args:
        shape: (C, H, W) of one image.
        patch_size: side of a patch in pixels; divides H and W.
        width: token width.
        depth: number of blocks.
        heads: attention heads; divides ``width``.
        mlp_ratio: hidden width of the MLP as a multiple of ``width``.
        num_classes: class labels, 0 for none.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        patch_size: int = 2,
        width: int = 256,
        depth: int = 6,
        heads: int = 4,
        mlp_ratio: int = 4,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        require_image("Transformer", shape)
        for size in shape[1:]:
            require_divisible("image size", size, "patch_size", patch_size)
        require_divisible("width", width, "heads", heads)
        self.shape = tuple(shape)
        self.num_classes = num_classes
        self.patch_size = patch_size
        patch_dim = shape[0] * patch_size**2
        tokens = shape[1] * shape[2] // patch_size**2
        self.conditioning = Conditioning(width, num_classes)
        self.input = nn.Linear(patch_dim, width)
        self.positions = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.blocks = nn.ModuleList(_Block(width, heads, mlp_ratio * width) for _ in range(depth))
        self.output_modulation = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, patch_dim, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        """Xavier everywhere, zero for all modulations and the output (DiT, §3.2)."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        modulations = [b.modulation for b in self.blocks if isinstance(b, _Block)]
        for layer in [*modulations, self.output_modulation, self.output]:
            nn.init.zeros_(layer.weight)

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        p = self.patch_size
        embedding = F.silu(self.conditioning(c, label))[:, None]
        patches = rearrange(u, "b c (y p) (x q) -> b (y x) (c p q)", p=p, q=p)
        h = self.input(patches) + self.positions
        for block in self.blocks:
            h = block(h, embedding)
        scale, shift = self.output_modulation(embedding).chunk(2, dim=-1)
        patches = self.output(_modulate(h, scale, shift))
        return rearrange(patches, "b (y x) (c p q) -> b c (y p) (x q)", y=u.shape[2] // p, p=p, q=p)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = nn.Linear(width, 6 * width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.projection = nn.Linear(width, width)
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        scale1, shift1, gate1, scale2, shift2, gate2 = self.modulation(embedding).chunk(6, dim=-1)
        qkv = self.qkv(_modulate(h, scale1, shift1))
        q, k, v = rearrange(qkv, "b t (n h d) -> n b h t d", n=3, h=self.heads)
        mixed = rearrange(attend(q, k, v), "b h t d -> b t (h d)")
        h = torch.addcmul(h, gate1, self.projection(mixed))
        hidden = gelu(self.expand(_modulate(h, scale2, shift2)))
        return torch.addcmul(h, gate2, self.contract(hidden))


def _modulate(h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return torch.addcmul(shift, normalise(h), 1 + scale)
