"""What an extractor of features is."""

from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor, nn

from energydiff.derivatives import full_precision
from energydiff.errors import UserError


class Extractor(nn.Module, ABC):
    """Features of images, and logits if it has classes: a frozen network that never trains.

    A subclass writes only ``extract``.

    Attributes:
        name: as :func:`~energydiff.evaluation.open_extractor` knows it.
        digest: SHA-256 of its weights, hexadecimal.
        resize: how images reach its size, in words.
        dim: numbers in a feature vector.
        classes: numbers in the logits; 0 where it has none.
    """

    def __init__(self, name: str, digest: str, resize: str, dim: int, classes: int = 0) -> None:
        super().__init__()
        self.name, self.digest, self.resize = name, digest, resize
        self.dim, self.classes = dim, classes

    @abstractmethod
    def extract(self, images: Tensor) -> Tensor:
        """Features and logits side by side, (B, dim + classes), of images (B, C, H, W) uint8."""

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Features and logits side by side, (B, dim + classes), float32, on its own device.

        One tensor, so that it can be gathered over ranks; ``features`` and ``logits`` take it
        apart. Autocast and TF32 convolutions are off, so neither training's precision nor the
        batch size moves a number beyond rounding.

        Args:
            images: (B, 1 or 3, H, W), uint8, on any device.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise UserError(
                f"{self.name} takes uint8 images (B, 1 or 3, H, W), not {images.dtype} of shape"
                f" {tuple(images.shape)}."
            )
        device = next(iter(self.state_dict().values())).device
        with full_precision(device):
            return self.extract(images.to(device)).float()

    def features(self, out: Tensor) -> Tensor:
        """The features (B, dim) of what the extractor returned."""
        return out[:, : self.dim]

    def logits(self, out: Tensor) -> Tensor | None:
        """The logits (B, classes) of what the extractor returned; None without classes."""
        return out[:, self.dim :] if self.classes else None

    @property
    def distance_name(self) -> str:
        """What the Fréchet distance of its features is called: FID on published Inception only."""
        return f"Fréchet distance ({self.name})"

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode, whatever it is a part of."""
        return super().train(False)


def three_channels(images: Tensor) -> Tensor:
    """Grey images (B, 1, H, W) as (B, 3, H, W); colour images as they are."""
    return images.expand(-1, 3, -1, -1)
