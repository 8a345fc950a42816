"""The affine map between raw values and the range that a model sees, and what is shown of these."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from energydiff.data.decoder import Decoder
from energydiff.errors import UserError

Moments = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Normalization:
    """Maps raw values low..high to -1..1; values outside are mapped along, not clipped.

    With ``moments`` each channel is mapped to mean 0 and standard deviation 1 instead, and
    low..high only says what the values reach, and which are black and white.

    Args:
        moments: means and standard deviations, one of each for every channel.
        decoder: makes images of raw samples that are none, as latents; nothing else asks for it.

    Raises UserError unless low < high, both finite, and each deviation is finite and above 0.
    """

    low: float
    high: float
    moments: Moments | None = None
    decoder: Decoder | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise UserError(
                f"A value range of {self.low} to {self.high} cannot be mapped to -1..1: give two "
                "finite numbers, the lower one first (data.source.value_range)."
            )
        if self.moments is None:
            return
        mean, std = self.moments
        finite = all(map(math.isfinite, (*mean, *std)))
        if not (finite and std and len(mean) == len(std) and min(std) > 0):
            raise UserError(
                f"Means {list(mean)} and standard deviations {list(std)} standardise nothing: give"
                " one finite number of each per channel, deviations above 0"
                " (data.source.standardize)."
            )

    def encode(self, raw: Tensor) -> Tensor:
        """Raw values of any dtype and shape, with moments (…, C, H, W), to float32."""
        raw = raw.to(torch.float32)
        if self.moments is None:
            return self._ranged(raw)
        mean, std = self._by_channel(raw)
        return (raw - mean) / std

    def decode(self, x: Tensor) -> Tensor:
        """The inverse of ``encode``: raw values as floats, neither rounded nor clipped."""
        if self.moments is None:
            return (x + 1) * ((self.high - self.low) / 2) + self.low
        mean, std = self._by_channel(x)
        return x * std + mean

    def picture_shape(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """(1 or 3, H, W) of what is shown of a sample of this shape; ``None`` where it is none."""
        if self.decoder is not None:
            return self.decoder.shape_of(shape)
        return tuple(shape) if len(shape) == 3 and shape[0] in (1, 3) else None

    def to_picture(self, x: Tensor) -> Tensor:
        """What is shown of samples (B, \\*shape): floats (B, 1 or 3, H, W), black -1, white 1."""
        if self.decoder is not None:
            return self.decoder(self.decode(x))
        return x if self.moments is None else self._ranged(self.decode(x))

    def to_uint8(self, x: Tensor) -> Tensor:
        """The same rounded to uint8, as published with EDM; without a decoder x is of any shape.

        An image read as uint8 and encoded comes back exactly.
        """
        return quantised(self.to_picture(x))

    def plain(self) -> dict[str, Any]:
        """All but the decoder, for a file."""
        plain: dict[str, Any] = {"low": self.low, "high": self.high}
        if self.moments is not None:
            plain["moments"] = [list(values) for values in self.moments]
        return plain

    @property
    def reach(self) -> float:
        """The largest size of a value between low and high, in model coordinates."""
        if self.moments is None:
            return 1.0
        ends = zip(*self.moments, strict=True)
        return max(max(self.high - mean, mean - self.low) / std for mean, std in ends)

    def _ranged(self, raw: Tensor) -> Tensor:
        return (raw - self.low) * (2 / (self.high - self.low)) - 1

    def _by_channel(self, like: Tensor) -> Tensor:
        """Means and deviations, (2, C, 1, 1)."""
        return torch.tensor(self.moments, device=like.device)[..., None, None]


def as_moments(mean: Iterable[float], std: Iterable[float]) -> Moments:
    """From numbers of any kind."""
    return tuple(map(float, mean)), tuple(map(float, std))


def quantised(picture: Tensor) -> Tensor:
    """Floats to uint8: -1 becomes 0 and 1 becomes 255."""
    return (picture * 127.5 + 128).clamp(0, 255).to(torch.uint8)
