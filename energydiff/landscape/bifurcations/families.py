"""Landscapes with a parameter p: noise, a homotopy between two models, any number of an energy.

A family gives of flat states (B, d), each at a parameter of its own (B,), what a
:class:`Surface` gives at a noise level, and ∂∇V/∂p.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from energydiff.energies.base import Energy
from energydiff.errors import UserError
from energydiff.landscape.surface import Product, Surface, dense


class Family(ABC):
    """V(·, p) in float64.

    Attributes:
        name: of the parameter.
        logarithmic: the natural unit of p is a factor, as that of σ; then p > 0.
        shape, dim, device, chunk: as of :class:`Surface`.
    """

    name: str = "parameter"
    logarithmic: bool = False

    def __init__(self, surface: Surface) -> None:
        self.shape, self.dim = surface.shape, surface.dim
        self.device, self.chunk = surface.device, surface.chunk

    @abstractmethod
    def gradient(self, x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        """V (B,) and ∇V (B, d)."""

    @abstractmethod
    def product(self, x: Tensor, p: Tensor) -> Product:
        """v ↦ ∇²V v, (B, d) to (B, d)."""

    @abstractmethod
    def parameter_gradient(self, x: Tensor, p: Tensor) -> Tensor:
        """∂∇V/∂p, (B, d)."""

    def hessian(self, x: Tensor, p: Tensor) -> Tensor:
        """∇²V, (B, d, d)."""
        return dense(self.product(x, p), x)

    def flat(self, x: Tensor) -> Tensor:
        """Samples (B, \\*shape) as states (B, d)."""
        return x.detach().to(self.device, torch.float64).reshape(len(x), self.dim)

    def shaped(self, x: Tensor) -> Tensor:
        """States (B, d) as samples (B, \\*shape)."""
        return x.view(len(x), *self.shape)


class Noise(Family):
    """p = σ, the noise level, followed in log σ."""

    name, logarithmic = "sigma", True

    def __init__(self, surface: Surface) -> None:
        super().__init__(surface)
        self.surface = surface

    def gradient(self, x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        return self.surface.gradient(x, p)

    def product(self, x: Tensor, p: Tensor) -> Product:
        return self.surface.product(x, p)

    def parameter_gradient(self, x: Tensor, p: Tensor) -> Tensor:
        return self.surface.noise_gradient(x, p)


class Homotopy(Family):
    """p = t from 0 to 1: V = (1 − t) V₀ + t V₁ of two models at one σ.

    Args:
        first, second: landscapes of samples of one shape.
        sigma: noise level of both.
    """

    name = "t"

    def __init__(self, first: Surface, second: Surface, sigma: float) -> None:
        if first.shape != second.shape:
            raise UserError(
                f"a homotopy needs models of samples of one shape, got {first.shape} and"
                f" {second.shape}."
            )
        super().__init__(first)
        self.first, self.second, self.sigma = first, second, sigma

    def gradient(self, x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        (v0, g0), (v1, g1) = (s.gradient(x, self.sigma) for s in (self.first, self.second))
        return v0 + p * (v1 - v0), g0 + p[:, None] * (g1 - g0)

    def product(self, x: Tensor, p: Tensor) -> Product:
        start, end = (s.product(x, self.sigma) for s in (self.first, self.second))
        share = p[:, None]
        return lambda v: (1 - share) * start(v) + share * end(v)

    def parameter_gradient(self, x: Tensor, p: Tensor) -> Tensor:
        return self.second.gradient(x, self.sigma)[1] - self.first.gradient(x, self.sigma)[1]


class Energies(Family):
    """p is any number that energies depend on, at one σ: ``energies(p)`` is the energy at p.

    ∂∇V/∂p by central differences.

    Args:
        energies: from p to an energy, smooth in p to float64: build its tensors in that.
        start: a p at which it exists.
        sigma: noise level.
        name: of the parameter.
        label: class of all states.
    """

    def __init__(
        self,
        energies: Callable[[float], Energy],
        start: float,
        sigma: float,
        name: str = "parameter",
        label: int | None = None,
    ) -> None:
        self.surface = lru_cache(64)(lambda p: Surface(energies(p), label))
        super().__init__(self.surface(start))
        self.sigma, self.name = sigma, name

    def gradient(self, x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        parts = [
            self.surface(value).gradient(row[None], self.sigma)
            for row, value in zip(x, p.tolist(), strict=True)
        ]
        return torch.cat([v for v, _ in parts]), torch.cat([g for _, g in parts])

    def product(self, x: Tensor, p: Tensor) -> Product:
        products = [
            self.surface(value).product(row[None], self.sigma)
            for row, value in zip(x, p.tolist(), strict=True)
        ]
        return lambda v: torch.cat([f(row[None]) for f, row in zip(products, v, strict=True)])

    def parameter_gradient(self, x: Tensor, p: Tensor) -> Tensor:
        step = 1e-5 * p.abs().clamp(min=1)
        ahead, behind = (self.gradient(x, p + way * step)[1] for way in (1, -1))
        return (ahead - behind) / (2 * step[:, None])
