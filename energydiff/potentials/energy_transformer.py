"""The Energy Transformer (Hoover et al. 2023) as a potential on images.

Attention and memory energies are scalars of tokens, and their gradient is what an ordinary
transformer block computes forward. But a sum of such energies on the same tokens is not a deep
network. Here they read out a residual trunk of half the usual depth:

    φ = −Σ E_term(N(h_L)) + ⟨W N(h_L), t⟩

t are the tokens (patches embedded linearly, positions, noise), h_L what the trunk makes of them and
N an RMS norm. ∇φ holds the output of a plain network and its mirrored pass back through the trunk,
so a trunk of L/2 blocks costs about what L plain blocks cost. All of it is written out with
ordinary operations: training is one ordinary backward.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from energydiff.errors import UserError
from energydiff.potentials.backbone import require_divisible
from energydiff.potentials.energy_terms import AttentionEnergy, EnergyTerm, MemoryEnergy
from energydiff.potentials.token_blocks import Convolution, rms_norm, rms_norm_pullback
from energydiff.potentials.token_scalar import TokenScalar
from energydiff.potentials.tokens import Patches, Trunk

READOUTS = ("attention", "memory", "inner_product")


class EnergyTransformer(TokenScalar):
    """Energy terms read out of a residual trunk on tokens.

    Args:
        shape: (C, H, W) of one image.
        patch_size: side of a patch in pixels; divides H and W.
        width: token width.
        trunk: the blocks in turn: ``convolution`` (depthwise 3×3), ``feedforward`` (relu²) or
            ``attention``.
        readout: the terms of φ: ``attention``, ``memory`` and ``inner_product``.
        heads: attention heads; divides ``width``.
        hidden_ratio: memories, and hidden width of ``feedforward``, as a multiple of ``width``.
        num_classes: class labels, 0 for none.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        patch_size: int = 2,
        width: int = 64,
        trunk: Sequence[str] = ("convolution", "feedforward") * 2,
        readout: Sequence[str] = READOUTS,
        heads: int = 4,
        hidden_ratio: int = 4,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        if not readout or set(readout) - set(READOUTS):
            raise UserError(f"readout is {list(readout)}: choose some of {', '.join(READOUTS)}.")
        require_divisible("width", width, "heads", heads)
        self.shape, self.num_classes = tuple(shape), num_classes
        patches, hidden = Patches(type(self).__name__, shape, patch_size), hidden_ratio * width
        self.trunk = Trunk(trunk, width, patches.grid, heads, hidden)
        self.terms = nn.ModuleList()
        if "attention" in readout:
            self.terms.append(AttentionEnergy(width, heads, width // heads, head_weights="learned"))
        if "memory" in readout:
            self.terms.append(MemoryEnergy(width, hidden, memory_weights="learned"))
        self.inner = None
        if "inner_product" in readout:
            self.inner = nn.Parameter(0.1 * torch.randn(width, width) * width**-0.5)
        self.embed(patches, width, [*self.trunk.sizes, *(t.size for t in self._terms())])

    def parts(self) -> list[tuple[nn.Module, Sequence[str]]]:
        large = [b for b in self.trunk.blocks if not isinstance(b, Convolution)]
        blocks = [(block, ("pullback",)) for block in large]
        return [*blocks, *((term, ("value_and_grads",)) for term in self.terms)]

    def token_value(self, t: Tensor, e: Sequence[Tensor]) -> Tensor:
        y = self._ascend(t, e)[0]
        phi = torch.zeros_like(t[:, 0, 0])
        for term, e_term in self._conditioned_terms(e):
            phi = phi - term(y, e_term)
        if self.inner is not None:
            phi = phi + (y @ self.inner * t).flatten(1).sum(1)
        return phi

    def token_pull(self, t: Tensor, e: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        y, r, saved = self._ascend(t, e)
        phi, to_y, to_t = torch.zeros_like(t[:, 0, 0]), torch.zeros_like(y), torch.zeros_like(t)
        to_terms = []
        for term, e_term in self._conditioned_terms(e):
            energy, grad, to_e = term.value_and_grads(y, e_term)
            phi, to_y = phi - energy, to_y - grad
            to_terms.append(-to_e)
        if self.inner is not None:
            to_t = y @ self.inner
            phi = phi + (to_t * t).flatten(1).sum(1)
            to_y = to_y + t @ self.inner.T
        through_trunk, to_blocks = self.trunk.pullback(rms_norm_pullback(to_y, y, r), saved)
        return phi, to_t + through_trunk, [*to_blocks, *to_terms]

    def _ascend(self, t: Tensor, e: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[Any]]:
        """y = N(h_L), the norm's factor, and what the trunk keeps for its reverse pass."""
        h, saved = self.trunk(t, e[: len(self.trunk.blocks)])
        return *rms_norm(h), saved

    def _conditioned_terms(self, e: Sequence[Tensor]) -> Iterator[tuple[EnergyTerm, Tensor]]:
        return zip(self._terms(), e[len(self.trunk.blocks) :], strict=True)

    def _terms(self) -> list[EnergyTerm]:
        return [term for term in self.terms if isinstance(term, EnergyTerm)]
