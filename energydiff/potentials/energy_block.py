"""The Energy Transformer block (Hoover et al. 2023): one energy on tokens, descended in steps.

    g = EnergyLayerNorm(x),    E(x) = E_att(g) + E_mem(g),    x ← x − α ∂E/∂g

As g = ∇L(x) with L convex, ⟨∂E/∂g, ẋ⟩ = −‖∂E/∂g‖² makes E fall in continuous time. In steps, E_mem
falls at any α (with w ≥ 0 it is concave in g), E_att at small α.
"""

import torch
from torch import Tensor, nn

from energydiff.potentials.energy_terms import (
    AttentionEnergy,
    EnergyLayerNorm,
    MemoryActivation,
    MemoryEnergy,
)


class EnergyTransformerBlock(nn.Module):
    """E(x) on tokens x (B, N, D), as published: unit weights.

    ``e`` is an optional conditioning vector (B or 1, size): β of each head, then the memory
    biases; see :mod:`energydiff.potentials.energy_terms`.

    Args:
        width: D.
        heads: attention heads.
        head_width: width of queries and keys per head.
        memories: number of memory patterns.
        activation: of the memories, ``relu2`` or ``softmax``.
        self_excluded: no token attends to itself.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        head_width: int,
        memories: int,
        activation: MemoryActivation = "relu2",
        self_excluded: bool = False,
    ) -> None:
        super().__init__()
        self.norm = EnergyLayerNorm(width)
        self.attention = AttentionEnergy(width, heads, head_width, self_excluded)
        self.memory = MemoryEnergy(width, memories, activation)
        self.size = self.attention.size + self.memory.size

    def forward(self, tokens: Tensor, e: Tensor | None = None) -> Tensor:
        """E(x), (B,)."""
        g = self.norm.activation(tokens)
        to_attention, to_memory = self._conditioning(e)
        return self.attention(g, to_attention) + self.memory(g, to_memory)

    def value_and_grad(self, tokens: Tensor, e: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """E (B,) and ∂E/∂x, like ``tokens``; both train with one ordinary backward."""
        return self.value_and_grads(tokens, e)[:2]

    def value_and_grads(
        self, tokens: Tensor, e: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """E (B,), ∂E/∂x, like ``tokens``, and ∂E/∂e, (B, size)."""
        energy, force, to_e = self._on_normalised(tokens, e)
        return energy, self.norm.pullback(tokens, force), to_e

    def token_force(self, tokens: Tensor, e: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """E (B,) and ∂E/∂g, like ``tokens``: minus the direction of the block's dynamics."""
        return self._on_normalised(tokens, e)[:2]

    def _on_normalised(self, tokens: Tensor, e: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """E, ∂E/∂g and ∂E/∂e."""
        g = self.norm.activation(tokens)
        to_attention, to_memory = self._conditioning(e)
        attention = self.attention.value_and_grads(g, to_attention)
        memory = self.memory.value_and_grads(g, to_memory)
        to_e = torch.cat([attention[2], memory[2]], 1)
        return attention[0] + memory[0], attention[1] + memory[1], to_e

    def _conditioning(self, e: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """The parts of ``e`` that each term takes."""
        if e is None:
            return None, None
        to_attention, to_memory = e.split([self.attention.size, self.memory.size], dim=-1)
        return to_attention, to_memory

    def descend(
        self,
        tokens: Tensor,
        steps: int,
        step_size: float | Tensor,
        clamp: Tensor | None = None,
        e: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Recurrent descent x ← x − α ∂E/∂g, differentiable throughout.

        Args:
            step_size: α, units of x per ∂E/∂g.
            clamp: tokens that are held, bool (N,) or (B, N).

        Returns:
            The tokens reached, (B, N, D), and E before each step and after the last,
            (steps + 1, B).
        """
        energies = []
        for _ in range(steps):
            energy, force = self.token_force(tokens, e)
            if clamp is not None:
                force = force.masked_fill(clamp[..., None], 0.0)
            energies.append(energy)
            tokens = tokens - step_size * force
        energies.append(self(tokens, e))
        return tokens, torch.stack(energies)
