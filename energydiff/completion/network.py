"""Masked completion by one Energy Transformer block (Hoover et al. 2023).

Patches become tokens by a linear map, hidden ones are one learned mask token instead; positions are
added, the block's energy is descended, and a linear map of the normalised tokens gives patches.
"Encode, descend, decode" is not the gradient of anything in pixel space; E is an energy of tokens.
"""

import torch
from torch import Tensor, nn

from energydiff.errors import UserError
from energydiff.potentials.backbone import Network
from energydiff.potentials.energy_block import EnergyTransformerBlock
from energydiff.potentials.energy_terms import MemoryActivation
from energydiff.potentials.tokens import Patches


class MaskedCompletion(Network):
    """Images from their visible patches. ``hidden`` is bool (B, N), N patches in raster order.

    Args:
        shape: (C, H, W) of one image.
        patch_size: side of a patch in pixels; divides H and W.
        width: token width.
        heads, head_width: of the attention energy.
        memories, activation: of the memory energy.
        self_excluded: no token attends to itself.
        steps: descent steps T.
        step_size: α.
    """

    num_classes = 0

    def __init__(
        self,
        shape: tuple[int, ...],
        patch_size: int = 2,
        width: int = 64,
        heads: int = 4,
        head_width: int = 16,
        memories: int = 128,
        activation: MemoryActivation = "relu2",
        self_excluded: bool = False,
        steps: int = 4,
        step_size: float = 0.3,
    ) -> None:
        super().__init__()
        if steps < 1 or not step_size > 0:
            raise UserError(
                f"steps = {steps} must be at least 1 and step_size = {step_size} positive."
            )
        self.shape = tuple(shape)
        self.patches = Patches("MaskedCompletion", shape, patch_size)
        self.tokens = self.patches.grid[0] * self.patches.grid[1]
        if self.tokens < 2:
            raise UserError(
                f"patch_size {patch_size} makes one patch of an image {self.shape}: nothing would"
                " be left to complete it from."
            )
        self.encoder = nn.Linear(self.patches.size, width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(width))
        self.positions = nn.Parameter(0.5 * torch.randn(self.tokens, width))
        self.block = EnergyTransformerBlock(
            width, heads, head_width, memories, activation, self_excluded
        )
        self.decoder = nn.Linear(width, self.patches.size)
        self.steps, self.step_size = steps, step_size

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Predicted patches (B, N, C p²) after T plain steps."""
        return self.decode(
            self.block.descend(self.encode(x, hidden), self.steps, self.step_size)[0]
        )

    def encode(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Tokens (B, N, width) of images (B, *shape), which are not looked at where hidden."""
        tokens = self.encoder(self.patches(x))
        return torch.where(hidden[..., None], self.mask_token, tokens) + self.positions

    def decode(self, tokens: Tensor) -> Tensor:
        """Patches (B, N, C p²)."""
        return self.decoder(self.block.norm.activation(tokens))

    def loss(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Mean squared error on hidden pixels, (B,)."""
        squares = (self(x, hidden) - self.patches(x)).square().mean(-1)
        return (squares * hidden).sum(1) / hidden.sum(1)

    def hide(self, scores: Tensor, share: Tensor) -> Tensor:
        """Hides the patches of lowest score: the ``share`` (B,) of them, at least 1, not all.

        ``scores`` are random numbers like an image, (B, *shape); a patch has the sum of its own.
        """
        rank = self.patches(scores).sum(-1).argsort(1).argsort(1)
        count = (share * self.tokens).round().clamp(1, self.tokens - 1)
        return rank < count[:, None]

    def pixels(self, hidden: Tensor) -> Tensor:
        """Hidden pixels, bool (B, *shape)."""
        return self.patches.join(hidden[..., None].expand(-1, -1, self.patches.size))
