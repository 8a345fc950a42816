"""How well E is −log p: likelihoods, held-out loss, consistency across noise, what is unlikely."""

from energydiff.likelihood.bits import bits_per_dim, lossless_bits_per_dim
from energydiff.likelihood.consistency import HeatResidual, heat_residual
from energydiff.likelihood.denoising_bound import denoising_bound
from energydiff.likelihood.detection import ood_auroc
from energydiff.likelihood.heldout import held_out_loss, held_out_losses
from energydiff.likelihood.ode import OdeLikelihood, gaussian_prior, ode_likelihood

__all__ = [
    "HeatResidual",
    "OdeLikelihood",
    "bits_per_dim",
    "denoising_bound",
    "gaussian_prior",
    "heat_residual",
    "held_out_loss",
    "held_out_losses",
    "lossless_bits_per_dim",
    "ode_likelihood",
    "ood_auroc",
]
