"""The affine map between raw values and the range that a model sees."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from energydiff.errors import UserError


@dataclass(frozen=True)
class Normalization:
    """Maps raw values low..high to -1..1; values outside are mapped along, not clipped.

    Raises UserError unless low < high, both finite.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise UserError(
                f"A value range of {self.low} to {self.high} cannot be mapped to -1..1: give two "
                "finite numbers, the lower one first (data.source.value_range)."
            )

    def encode(self, raw: Tensor) -> Tensor:
        """Raw values of any dtype and shape to float32, low..high becoming -1..1."""
        return (raw.to(torch.float32) - self.low) * (2 / (self.high - self.low)) - 1

    def decode(self, x: Tensor) -> Tensor:
        """The inverse of ``encode``: raw values as floats, neither rounded nor clipped."""
        return (x + 1) * ((self.high - self.low) / 2) + self.low

    def to_uint8(self, x: Tensor) -> Tensor:
        """Model values of any shape to uint8: low is shown as 0 and high as 255.

        The rounding published with EDM; an image read as uint8 and encoded comes back exactly.
        """
        return (x * 127.5 + 128).clamp(0, 255).to(torch.uint8)
