"""Objectives of noise-blind energies: one gradient field, regressed at every noise at once.

Both interpolate x_γ = γ x0 + (1 − γ) ε with γ uniform in (0, 1). In the coordinates used elsewhere
this is x = x0 + σε divided by 1 + σ, with γ = 1/(1 + σ), so σ says which γ an image gets. The
energy is asked at x_γ without being told γ: at its optimum ∇E is the mean of the target over all γ,
x0 and ε that could have led to x_γ.
"""

from dataclasses import dataclass, replace

import scipy
import torch
from torch import Tensor

from energydiff.diffusion.batch import NoisyBatch
from energydiff.diffusion.noise import UniformTime
from energydiff.diffusion.objective import Objective
from energydiff.energies.base import Denoiser, per_sample
from energydiff.errors import UserError


class NoiseBlindObjective(Objective):
    """A regression of ∇E of a noise-blind energy on a multiple of ε − x0."""

    noise = UniformTime()
    takes_mean = False

    def prepare(self, denoiser: Denoiser) -> None:
        if not denoiser.noise_blind:
            raise UserError(
                f"{type(self).__name__} trains a noise-blind energy: choose parametrization dot,"
                " squared_norm or coercive."
            )

    def regress(self, denoiser: Denoiser, batch: NoisyBatch, target: Tensor) -> dict[str, Tensor]:
        """‖∇E(x_γ) − target‖²/d per image."""
        share = per_sample(1 / (1 + batch.sigma), batch.x0)
        x = share * batch.x0 + (1 - share) * batch.noise
        grad = denoiser.require_energy().value_and_grad(x, 1.0, batch.label)[1]
        return {self.parts[0]: (grad - target).square().flatten(1).mean(1)}


@dataclass(frozen=True)
class EquilibriumMatching(NoiseBlindObjective):
    """∇E(x_γ) ← λ c(γ) (ε − x0) with c(γ) = min(1, (1 − γ)/(1 − a)), which vanishes at data.

    Wang & Du 2025, §3.1: the truncated decay, at the values of their experiments.

    Args:
        truncation: a in [0, 1), the γ from which the target decays.
        scale: λ, the length of the gradient in units of ε − x0.
    """

    truncation: float = 0.8
    scale: float = 4.0
    parts = ("equilibrium",)

    def __post_init__(self) -> None:
        if not (0 <= self.truncation < 1 and self.scale > 0):
            raise UserError(
                f"truncation is {self.truncation} and scale {self.scale}; the former lies in [0, 1)"
                " and the latter is positive."
            )

    def __call__(self, denoiser: Denoiser, batch: NoisyBatch) -> dict[str, Tensor]:
        gamma = 1 / (1 + batch.sigma)
        decay = ((1 - gamma) / (1 - self.truncation)).clamp(max=1)
        target = per_sample(self.scale * decay, batch.x0) * (batch.noise - batch.x0)
        return self.regress(denoiser, batch, target)


@dataclass(frozen=True)
class EnergyMatching(NoiseBlindObjective):
    """∇E(x_γ) ← ε − x0 with every x0 given the ε of a minibatch optimal-transport coupling.

    The first phase of energy matching (Balcerak et al. 2025, §3.1), its flow. ε and x0 are paired
    within the images of one process, at the least Σ‖ε − x0‖², so two ranks with half the batch each
    pair otherwise than one. The target is as long at data as elsewhere: data are no minima yet, and
    descent to a resting point is for the published second phase, which is not here.
    """

    parts = ("flow",)

    def __call__(self, denoiser: Denoiser, batch: NoisyBatch) -> dict[str, Tensor]:
        paired = replace(batch, noise=batch.noise[optimal_pairs(batch.x0, batch.noise)])
        return self.regress(denoiser, paired, paired.noise - paired.x0)


def optimal_pairs(x0: Tensor, noise: Tensor) -> Tensor:
    """The permutation π, (B,), of the least Σ ‖x0_i − ε_π(i)‖², found on the CPU."""
    # Squared norms are the same for every permutation, so only inner products remain.
    cost = -(x0.detach().flatten(1).double() @ noise.flatten(1).double().mT)
    _, pairs = scipy.optimize.linear_sum_assignment(cost.cpu().numpy())
    return torch.as_tensor(pairs, device=x0.device)
