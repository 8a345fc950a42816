"""What scalar networks on tokens share: patches, positions, conditioning and its derivative."""

import math
from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor

from energydiff.potentials.conditioned_scalar import ConditionedScalar
from energydiff.potentials.tokens import Patches, embed_patches


class TokenScalar(ConditionedScalar):
    """A scalar of tokens t = patches · embedding + positions + a vector of noise and label.

    A subclass calls :meth:`embed` once in its constructor and writes the scalar of tokens.
    """

    def embed(self, patches: Patches, width: int, sizes: Sequence[int]) -> None:
        """Make the embedding of patches, and a conditioning vector of each of ``sizes``."""
        self.patches = patches
        tokens = math.prod(self.patches.grid)
        self.embedding, self.positions = embed_patches(self.patches.size, tokens, width)
        self.condition(width, [width, *sizes])

    @abstractmethod
    def token_value(self, t: Tensor, e: Sequence[Tensor]) -> Tensor:
        """φ (B,) of tokens t (B, N, width) and conditioning e, each (B or 1, size)."""

    @abstractmethod
    def token_pull(self, t: Tensor, e: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """φ, ∂φ/∂t like t, and ∂φ/∂e, each (B, size)."""

    def value(self, u: Tensor, e: Sequence[Tensor]) -> Tensor:
        return self.token_value(self._tokens(u, e[0]), e[1:])

    def pull(self, u: Tensor, e: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        phi, to_t, to_e = self.token_pull(self._tokens(u, e[0]), e[1:])
        return phi, self.patches.join(to_t @ self.embedding.T), [to_t.sum(1), *to_e]

    def _tokens(self, u: Tensor, first: Tensor) -> Tensor:
        return self.patches(u) @ self.embedding + self.positions + first[:, None]
