"""Scalar networks whose noise and label enter as vectors: their gradients from one reverse pass."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from energydiff.potentials.backbone import ScalarNetwork
from energydiff.potentials.tokens import ConditioningVectors


class ConditionedScalar(ScalarNetwork):
    """A scalar φ(u, e) of samples and of vectors e that noise and label become.

    A subclass calls :meth:`condition` once in its constructor and writes φ and its reverse pass.
    """

    def condition(self, width: int, sizes: Sequence[int]) -> None:
        """Make the embedding of noise and label, and a vector of each of ``sizes``."""
        self.conditioning = ConditioningVectors(width, self.num_classes, sizes)

    def vectors(self, c: Tensor, label: Tensor | None) -> tuple[Tensor, ...]:
        """e: what noise and label become, each (B or 1, size)."""
        vectors: tuple[Tensor, ...] = self.conditioning(c, label)
        return vectors

    @abstractmethod
    def value(self, u: Tensor, e: Sequence[Tensor]) -> Tensor:
        """φ (B,) of samples u and vectors e, each (B or 1, size)."""

    @abstractmethod
    def pull(self, u: Tensor, e: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """φ, ∂φ/∂u like u, and ∂φ/∂e, each (B, size)."""

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        return self.value(u, self.vectors(c, label))

    def value_and_grad(
        self, u: Tensor, c: Tensor, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        phi, to_u, _ = self.pull(u, self.vectors(c, label))
        return phi, to_u

    def value_and_grads(
        self, u: Tensor, c: Tensor, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        # One value per sample, so that each has its own derivative.
        e, pullback = torch.func.vjp(  # type: ignore[misc]
            lambda c: self.vectors(c, label), c.contiguous()
        )
        phi, to_u, to_e = self.pull(u, e)
        (to_c,) = pullback(tuple(to_e))
        return phi, to_u, to_c
