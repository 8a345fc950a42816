"""Training objectives: what a batch of clean images, noise levels and noises costs a model.

Denoising score matching with EDM's weighting (Vincent 2011; Karras et al. 2022, §5) fits ∇E at each
noise and leaves E free up to a function c(σ). Dual score matching (Guth et al. 2025) adds the time
score: with x = x0 + σε the regression target of ∂E/∂log σ at fixed x is d − ‖ε‖², of variance 2d.
Together they fix E across σ. An energy that is a density by itself can be fitted by its
likelihood, which needs no derivative in x.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from energydiff.diffusion.batch import NoisyBatch
from energydiff.diffusion.noise import LogNormal, NoiseLevels
from energydiff.energies.base import Denoiser, per_sample
from energydiff.errors import NoEnergyError, UserError


def denoising_loss(denoiser: Denoiser, batch: NoisyBatch) -> Tensor:
    """(1/c_out²) ‖D(x0 + σε, σ) − x0‖² / d per image, (B,).

    With c_out² = σ²σ_d²/(σ²+σ_d²) the target of the raw network has unit variance: a model that
    has learned nothing scores about 1 at every noise. Where the batch has a posterior mean, it
    stands in the place of x0.
    """
    return _denoising(denoiser.denoise(batch.x, batch.sigma, batch.label), batch)


class Objective(ABC):
    """What is minimised, as named parts whose sum is the loss.

    Attributes:
        parts: their names.
        fixes_gauge: it leaves no c(σ) free, so no gauge is to be calibrated.
        takes_mean: it learns as well from E[x0 | x] in the place of x0.
        noise: the distribution of σ where none is chosen.
    """

    parts: tuple[str, ...] = ("denoising",)
    fixes_gauge: bool = False
    takes_mean: bool = True
    noise: NoiseLevels = LogNormal()

    def prepare(self, denoiser: Denoiser) -> None:
        """Called once with the model to train; ``UserError`` if this objective cannot train it."""
        if denoiser.noise_blind:
            raise UserError(
                f"{type(self).__name__} trains models that know their noise; for a noise-blind"
                " energy use EquilibriumMatching or EnergyMatching."
            )

    def require_mean(self) -> None:
        """``UserError`` if a posterior mean is of no use to it."""
        if not self.takes_mean:
            raise UserError(
                f"{type(self).__name__} has no use for the mean of a teacher or of"
                " model.stable_targets: train by DenoisingScoreMatching or DualScoreMatching."
            )

    @abstractmethod
    def __call__(self, denoiser: Denoiser, batch: NoisyBatch) -> dict[str, Tensor]:
        """Each of ``parts`` per image, (B,)."""


@dataclass(frozen=True)
class DenoisingScoreMatching(Objective):
    """The denoising loss alone: for energies up to a gauge, and for baselines."""

    def __call__(self, denoiser: Denoiser, batch: NoisyBatch) -> dict[str, Tensor]:
        return {"denoising": denoising_loss(denoiser, batch)}


@dataclass(frozen=True)
class DualScoreMatching(Objective):
    """The denoising loss and w (σ/σ_d)^p ((∂E/∂log σ − (d − ‖ε‖²)) / d)².

    The residual is taken per dimension, as the denoising loss is: weighed by its variance 2d
    instead, its noise drowns the denoising gradient of large images and is idle in two dimensions
    (docs/results/lyapunov.md). p = 0 weighs it in nats, p = 2 in units of the potential φ, of which
    E holds (σ_d/σ)φ: the first costs quality, the second leaves E at the lowest noise to chance
    (docs/results/likelihood.md).

    Args:
        time_weight: w.
        noise_power: p; lower for a better likelihood, at a price in quality.
    """

    time_weight: float = 1.0
    noise_power: float = 1.0
    parts = ("denoising", "time_score")
    fixes_gauge = True

    def __post_init__(self) -> None:
        if not self.time_weight > 0:
            raise UserError(
                f"time_weight is {self.time_weight}; give a positive weight, or use"
                " DenoisingScoreMatching."
            )
        if not 0 <= self.noise_power <= 2:
            raise UserError(f"noise_power is {self.noise_power}; it must lie between 0 and 2.")

    def prepare(self, denoiser: Denoiser) -> None:
        super().prepare(denoiser)
        if denoiser.energy is None:
            raise NoEnergyError(
                f"{type(denoiser).__name__} has no energy for DualScoreMatching to fit: set"
                " model.objective to energydiff.diffusion.DenoisingScoreMatching."
            )

    def __call__(self, denoiser: Denoiser, batch: NoisyBatch) -> dict[str, Tensor]:
        energy, x, sigma = denoiser.require_energy(), batch.x, batch.sigma
        _, grad, time_score = energy.value_and_grads(x, sigma, batch.label)
        denoised = x - per_sample(sigma, x).square() * grad
        residual = time_score - batch.time_target
        weight = self.time_weight * (sigma / batch.sigma_data) ** self.noise_power
        return {
            "denoising": _denoising(denoised, batch),
            "time_score": weight * (residual / energy.dim).square(),
        }


@dataclass(frozen=True)
class MaximumLikelihood(Objective):
    """E(x0 + σε, σ)/d, nats per dimension: for energies that are densities by construction.

    Its excess over the entropy of the noisy data is KL(p_σ ‖ model) = ∫ τ E‖∇log p_τ + ∇E‖² dτ over
    all noise τ ≥ σ: a denoising loss (Song et al. 2021c, theorem 1) without a derivative in x.
    """

    parts = ("likelihood",)
    fixes_gauge = True
    takes_mean = False

    def prepare(self, denoiser: Denoiser) -> None:
        super().prepare(denoiser)
        if not denoiser.exact:
            raise UserError(
                f"{type(denoiser).__name__} is no density by construction, so its likelihood is"
                " not known: train parametrization natural, or by denoising."
            )

    def __call__(self, denoiser: Denoiser, batch: NoisyBatch) -> dict[str, Tensor]:
        if batch.mean is not None:
            self.require_mean()
        energy = denoiser.require_energy()(batch.x, batch.sigma, batch.label)
        return {"likelihood": energy / denoiser.dim}


def _denoising(denoised: Tensor, batch: NoisyBatch) -> Tensor:
    sigma, sigma_data = batch.sigma, batch.sigma_data
    weight = (sigma.square() + sigma_data**2) / (sigma * sigma_data).square()
    return weight * (denoised - batch.target).square().flatten(1).mean(1)
