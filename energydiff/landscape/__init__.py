"""What is measured of a model: curvature, consistency across noise, likelihood."""

from energydiff.landscape.asymmetry import jacobian_asymmetry
from energydiff.landscape.bits import bits_per_dim, lossless_bits_per_dim
from energydiff.landscape.consistency import HeatResidual, heat_residual
from energydiff.landscape.curvature import Curvature, curvature
from energydiff.landscape.denoising_bound import denoising_bound
from energydiff.landscape.detection import ood_auroc
from energydiff.landscape.heldout import held_out_loss, held_out_losses
from energydiff.landscape.likelihood import OdeLikelihood, gaussian_prior, ode_likelihood

__all__ = [
    "Curvature",
    "HeatResidual",
    "OdeLikelihood",
    "bits_per_dim",
    "curvature",
    "denoising_bound",
    "gaussian_prior",
    "heat_residual",
    "held_out_loss",
    "held_out_losses",
    "jacobian_asymmetry",
    "lossless_bits_per_dim",
    "ode_likelihood",
    "ood_auroc",
]
