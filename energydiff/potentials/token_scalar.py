"""What scalar networks on tokens share: patches, positions, conditioning and its derivative."""

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from energydiff.potentials.backbone import ScalarNetwork
from energydiff.potentials.tokens import ConditioningVectors, Patches, embed_patches


class TokenScalar(ScalarNetwork):
    """A scalar of tokens t = patches · embedding + positions + a vector of noise and label.

    A subclass calls :meth:`embed` once in its constructor and writes the scalar of tokens.
    """

    def embed(self, patches: Patches, width: int, sizes: Sequence[int]) -> None:
        """Make the embedding of patches, and a conditioning vector of each of ``sizes``."""
        self.patches = patches
        tokens = math.prod(self.patches.grid)
        self.embedding, self.positions = embed_patches(self.patches.size, tokens, width)
        self.conditioning = ConditioningVectors(width, self.num_classes, [width, *sizes])

    @abstractmethod
    def value(self, t: Tensor, e: Sequence[Tensor]) -> Tensor:
        """φ (B,) of tokens t (B, N, width) and conditioning e, each (B or 1, size)."""

    @abstractmethod
    def pull(self, t: Tensor, e: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """φ, ∂φ/∂t like t, and ∂φ/∂e, each (B, size)."""

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        first, *e = self.conditioning(c, label)
        return self.value(self._tokens(u, first), e)

    def value_and_grad(
        self, u: Tensor, c: Tensor, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        first, *e = self.conditioning(c, label)
        phi, to_t, _ = self.pull(self._tokens(u, first), e)
        return phi, self._to_samples(to_t)

    def value_and_grads(
        self, u: Tensor, c: Tensor, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            # One value per sample, so that each has its own derivative.
            c = c.contiguous() if c.requires_grad else c.detach().clone().requires_grad_()
            vectors = self.conditioning(c, label)
        first, *e = vectors
        phi, to_t, to_e = self.pull(self._tokens(u, first), e)
        (to_c,) = torch.autograd.grad(
            vectors, c, [to_t.sum(1), *to_e], create_graph=torch.is_grad_enabled()
        )
        return phi, self._to_samples(to_t), to_c

    def _tokens(self, u: Tensor, first: Tensor) -> Tensor:
        return self.patches(u) @ self.embedding + self.positions + first[:, None]

    def _to_samples(self, to_t: Tensor) -> Tensor:
        return self.patches.join(to_t @ self.embedding.T)
