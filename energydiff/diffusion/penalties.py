"""Soft penalties on what the theorems need of an energy, beside any objective.

For the energy of real data the denoiser is monotone (∇D ⪰ 0, so the descent part falls) and
∂V/∂σ = 2σ KL(posterior ‖ p0) ≥ 0 (so the landscape part falls). A learned energy may break either;
a penalty is zero where it holds, so the true energy pays nothing. Neither proves anything: the
certificate stays ``observed``.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from energydiff.diffusion.batch import NoisyBatch
from energydiff.diffusion.objective import Objective
from energydiff.energies.base import Denoiser, Energy, per_sample
from energydiff.errors import UserError
from energydiff.ranks import rank_count


class Penalty(nn.Module, ABC):
    """weight × a squared violation, per image.

    Args:
        weight: positive.
    """

    name: ClassVar[str]

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        if not weight > 0:
            raise UserError(f"{type(self).__name__}.weight is {weight}; it must be positive.")
        self.weight = weight

    def prepare(self, energy: Energy) -> None:
        """Called once with the energy that will be trained."""

    @abstractmethod
    def forward(self, energy: Energy, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        """The penalty at noisy data x (B, \\*shape), (B,)."""


class MonotoneDenoiser(Penalty):
    """weight × min(0, r)², r = ⟨v, D(x + σv) − D(x − σv)⟩ / 2σ for one unit vector v.

    r is the mean of vᵀ∇D v along the chord, at least λ_min(∇D) there, and ≥ 0 for every monotone D.
    v is a buffer: at every training step one step of power iteration on sI − ∇D, averaged over the
    batch (that of all ranks), moves it towards the direction in which D is least monotone. The
    shift s is twice the largest ‖∇D v‖ met so far: should a direction in which D expands gain on v,
    it raises s and loses. Costs two denoiser calls.
    """

    name = "monotone_denoiser"
    direction: Tensor
    shift: Tensor

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.register_buffer("direction", torch.empty(0))
        self.register_buffer("shift", torch.zeros(()))

    def prepare(self, energy: Energy) -> None:
        v = torch.randn(energy.shape, generator=torch.Generator().manual_seed(0))
        self.direction = v / v.norm()

    def forward(self, energy: Energy, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        v = self.direction.to(x).clone()  # moved in place below
        chord = per_sample(sigma, x) * v
        spread = energy.denoise(x + chord, sigma, label) - energy.denoise(x - chord, sigma, label)
        along = spread / per_sample(2 * sigma, x)  # ∇D v, mean along the chord
        rayleigh = (along * v).flatten(1).sum(1)
        if self.training:
            self._advance(along.detach())
        return self.weight * rayleigh.clamp(max=0).square()

    @torch.no_grad()
    def _advance(self, along: Tensor) -> None:
        along = along.to(self.direction)
        mean, longest = along.mean(0), along.flatten(1).norm(dim=1).max()
        if (ranks := rank_count()) > 1:
            torch.distributed.all_reduce(mean)
            torch.distributed.all_reduce(longest, torch.distributed.ReduceOp.MAX)
            mean /= ranks
        self.shift.copy_(torch.maximum(self.shift, 2 * longest))
        moved = self.shift * self.direction - mean
        self.direction.copy_(moved / moved.norm().clamp_min(1e-12))


class RisingFreeEnergy(Penalty):
    """weight × min(0, k)², k = (∂V/∂log σ)/(2σ²d): nats per dimension.

    For the true energy dk is KL(posterior ‖ p0). It depends on the gauge, which denoising score
    matching leaves free and this penalty then bounds from one side. Costs one joint gradient.
    """

    name = "rising_free_energy"

    def forward(self, energy: Energy, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        divergence = energy.free_energy_slope(x, sigma, label) / (2 * sigma)
        return self.weight * (divergence / energy.dim).clamp(max=0).square()


class Penalised(nn.Module, Objective):
    """An objective and penalties, each a part of its own.

    Args:
        objective: of a model that is an energy and knows its noise.
        penalties: :class:`MonotoneDenoiser`, :class:`RisingFreeEnergy`.
    """

    def __init__(self, objective: Objective, penalties: Sequence[Penalty]) -> None:
        super().__init__()
        names = [penalty.name for penalty in penalties]
        if not names or len(set(names)) < len(names):
            raise UserError(f"penalties are {names}; give at least one, and each once.")
        self.objective, self.penalties = objective, nn.ModuleList(penalties)
        self.parts = (*objective.parts, *names)
        self.fixes_gauge, self.noise = objective.fixes_gauge, objective.noise

    def prepare(self, denoiser: Denoiser) -> None:
        self.objective.prepare(denoiser)
        Objective.prepare(self, denoiser)
        for penalty in self._penalties():
            penalty.prepare(denoiser.require_energy())

    def require_mean(self) -> None:
        self.objective.require_mean()

    def forward(self, denoiser: Denoiser, batch: NoisyBatch) -> dict[str, Tensor]:
        energy = denoiser.require_energy()
        losses = self.objective(denoiser, batch)
        for penalty in self._penalties():
            losses[penalty.name] = penalty(energy, batch.x, batch.sigma, batch.label)
        return losses

    def _penalties(self) -> list[Penalty]:
        return [penalty for penalty in self.penalties if isinstance(penalty, Penalty)]
