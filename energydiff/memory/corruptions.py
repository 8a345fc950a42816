"""What can be wrong with a sample, and what of it is still known exactly.

    bad = Occlusion(4, 8, at=(4, 0))(x)
    retrieve(energy, bad.x, bad.known, …)

Each draws from one integer seed per sample, so a sample's corruption does not depend on its batch.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import scipy
import torch
from torch import Tensor

from energydiff.errors import UserError
from energydiff.random import CORRUPTION, as_indices, keyed_normal, keyed_order, keyed_uniform


@dataclass(frozen=True)
class Corrupted:
    """Corrupted samples.

    Attributes:
        x: (B, \\*shape), like what they were made from.
        known: true where an entry is as it was, (B, \\*shape) boolean: the clamp of ``retrieve``.
            ``None`` if no entry is known to be.
    """

    x: Tensor
    known: Tensor | None


class Corruption(ABC):
    """Called on samples (B, \\*shape) it returns them corrupted."""

    def __call__(self, x: Tensor, seeds: Iterable[int] | None = None) -> Corrupted:
        """``seeds``: one integer per sample of ``x`` (B, \\*shape); 0 to B − 1 by default."""
        seeds = as_indices(range(len(x)) if seeds is None else seeds).to(x.device)
        if len(seeds) != len(x) or not x.is_floating_point():
            raise UserError(
                f"a corruption takes floating point samples and one seed for each, got"
                f" {len(seeds)} seeds for x of shape {tuple(x.shape)} {x.dtype}."
            )
        return self.corrupt(x, seeds)

    @abstractmethod
    def corrupt(self, x: Tensor, seeds: Tensor) -> Corrupted:
        """The samples corrupted, from ``seeds`` (B,) int64 on the device of x."""


@dataclass(frozen=True)
class GaussianNoise(Corruption):
    """x + std ε, ε ~ N(0, I); nothing stays known. ``std`` > 0 in units of x."""

    std: float

    def __post_init__(self) -> None:
        _require_positive("std", self.std)

    def corrupt(self, x: Tensor, seeds: Tensor) -> Corrupted:
        noise = keyed_normal(0, seeds, x.shape[1:], CORRUPTION, x.dtype)
        return Corrupted(x + self.std * noise, None)


@dataclass(frozen=True)
class Masking(Corruption):
    """A share of the pixels hidden at random, of an image (C, H, W) in all channels alike.

    Hidden entries are ``fill``, in units of x: by default mid-grey of images in [−1, 1].
    """

    fraction: float
    fill: float = 0.0

    def __post_init__(self) -> None:
        _require_share(self.fraction)

    def corrupt(self, x: Tensor, seeds: Tensor) -> Corrupted:
        pixels = x.shape[2:] if x.ndim == 4 else x.shape[1:]
        hidden = _chosen(self.fraction, pixels, seeds)
        return _hide(x, hidden[:, None] if x.ndim == 4 else hidden, self.fill)


@dataclass(frozen=True)
class Occlusion(Corruption):
    """A block of ``height`` by ``width`` pixels of an image (…, H, W) hidden behind ``fill``.

    ``at`` is its upper left corner (row, column); without, it is drawn for each sample.
    """

    height: int
    width: int
    at: tuple[int, int] | None = None
    fill: float = 0.0

    def corrupt(self, x: Tensor, seeds: Tensor) -> Corrupted:
        rows, columns = _image_size(self, x)
        room = (rows - self.height, columns - self.width)
        if min(self.height, self.width) < 1 or not all(
            0 <= a <= most for a, most in zip(self.at or (0, 0), room, strict=True)
        ):
            raise UserError(f"{self} does not fit into images of {rows} by {columns} pixels.")
        top, left = (
            torch.full_like(seeds, fixed) if self.at else (drawn * (most + 1)).long()
            for fixed, drawn, most in zip(
                self.at or (0, 0), keyed_uniform(0, seeds, 2, CORRUPTION).T, room, strict=True
            )
        )
        hidden = _within(top, self.height, rows)[:, :, None]
        hidden = hidden & _within(left, self.width, columns)[:, None]
        return _hide(x, hidden.view(-1, *[1] * (x.ndim - 3), rows, columns), self.fill)


@dataclass(frozen=True)
class BitFlips(Corruption):
    """The sign of a share of the entries turned, of patterns of ±1; nothing stays known."""

    fraction: float

    def __post_init__(self) -> None:
        _require_share(self.fraction)

    def corrupt(self, x: Tensor, seeds: Tensor) -> Corrupted:
        if not bool((x.abs() == 1).all()):
            raise UserError("BitFlips takes patterns of -1 and +1 only.")
        flipped = _chosen(self.fraction, x.shape[1:], seeds)
        return Corrupted(torch.where(flipped, -x, x), None)


@dataclass(frozen=True)
class Blur(Corruption):
    """Images (…, H, W) under a Gaussian of ``radius`` > 0 pixels (its standard deviation), mirrored
    at the edges; nothing stays known."""

    radius: float

    def __post_init__(self) -> None:
        _require_positive("radius", self.radius)

    def corrupt(self, x: Tensor, seeds: Tensor) -> Corrupted:
        _image_size(self, x)
        spread = [0.0] * (x.ndim - 2) + [self.radius] * 2
        blurred = scipy.ndimage.gaussian_filter(x.cpu().double(), spread)
        return Corrupted(torch.from_numpy(blurred).to(x), None)


def _hide(x: Tensor, hidden: Tensor, fill: float) -> Corrupted:
    return Corrupted(x.masked_fill(hidden, fill), ~hidden.expand_as(x))


def _chosen(fraction: float, shape: tuple[int, ...], seeds: Tensor) -> Tensor:
    """Exactly a share of the entries of each sample, to a whole number: (B, \\*shape)."""
    size = math.prod(shape)
    return (keyed_order(0, seeds, size, CORRUPTION) < round(fraction * size)).view(-1, *shape)


def _within(start: Tensor, length: int, size: int) -> Tensor:
    """True from each start (B,) on for ``length`` places: (B, size)."""
    behind = torch.arange(size, device=start.device) - start[:, None]
    return (behind >= 0) & (behind < length)


def _image_size(corruption: Corruption, x: Tensor) -> tuple[int, int]:
    if x.ndim < 3:
        raise UserError(
            f"{type(corruption).__name__} takes images (B, ..., H, W), got x of shape"
            f" {tuple(x.shape)}."
        )
    return x.shape[-2], x.shape[-1]


def _require_share(fraction: float) -> None:
    if not 0 <= fraction <= 1:
        raise UserError(f"fraction must be between 0 and 1, got {fraction}.")


def _require_positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise UserError(f"{name} must be positive and finite, got {value}.")
