"""Distributions of the noise level σ in training, as quantile functions.

A quantile function turns one uniform number per image into its σ, so that the noise of an image
depends on (seed, image count) alone.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from energydiff.energies import NoiseRange
from energydiff.errors import UserError


class NoiseLevels(ABC):
    """A distribution of σ > 0."""

    @abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """σ for u in (0, 1), elementwise."""


@dataclass(frozen=True)
class LogNormal(NoiseLevels):
    """ln σ ~ N(mean, std²) (Karras et al. 2022, §5: P_mean = −1.2, P_std = 1.2)."""

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise UserError(f"noise std is {self.std}; the spread of ln σ must be positive.")

    def quantile(self, u: Tensor) -> Tensor:
        return (self.mean + self.std * torch.special.ndtri(u)).exp()


@dataclass(frozen=True)
class LogUniform(NoiseLevels):
    """ln σ uniform between two levels."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        NoiseRange(self.sigma_min, self.sigma_max)  # which refuses what is none

    def quantile(self, u: Tensor) -> Tensor:
        low, high = math.log(self.sigma_min), math.log(self.sigma_max)
        return (low + u * (high - low)).exp()


@dataclass(frozen=True)
class CoveringLogNormal(NoiseLevels):
    """A :class:`LogNormal`, but for a share of the draws that is log-uniform over a range.

    A log-normal chosen for the quality of samples leaves the ends of the range they are drawn on
    to a few draws in a hundred. A likelihood adds up ∂E/∂log σ over all of it, so an energy that
    is to be one is trained there too (docs/likelihood.md).

    Args:
        mean, std: of ln σ, as of :class:`LogNormal`.
        sigma_min, sigma_max: the range, units of x.
        share: of the draws that cover it, between 0 and 1.
    """

    mean: float = -0.8
    std: float = 1.0
    sigma_min: float = 0.02
    sigma_max: float = 20.0
    share: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise UserError(f"noise share is {self.share}; it must lie between 0 and 1.")
        LogNormal(self.mean, self.std)  # which refuse what is none
        NoiseRange(self.sigma_min, self.sigma_max)

    def quantile(self, u: Tensor) -> Tensor:
        """σ for u in (0, 1), elementwise: the lowest u cover the range."""
        # Either part of (0, 1) is stretched to all of it, of which its ends are not.
        end = torch.finfo(u.dtype).eps / 2
        covering, rest = u / self.share, (u - self.share) / (1 - self.share)
        return torch.where(
            u < self.share,
            LogUniform(self.sigma_min, self.sigma_max).quantile(covering),
            LogNormal(self.mean, self.std).quantile(rest.clamp(end, 1 - end)),
        )


@dataclass(frozen=True)
class UniformTime(NoiseLevels):
    """σ = t/(1 − t) with t uniform in (0, 1): the noise of flow matching's x_t = (1 − t) x0 + tε,
    which is x = x0 + σε divided by 1 + σ."""

    def quantile(self, u: Tensor) -> Tensor:
        return u / (1 - u)
