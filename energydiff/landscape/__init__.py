"""What is measured of a model: critical points and how they hang together, curvature, consistency
across noise, likelihood."""

from energydiff.landscape.asymmetry import jacobian_asymmetry
from energydiff.landscape.bits import bits_per_dim, lossless_bits_per_dim
from energydiff.landscape.consistency import HeatResidual, heat_residual
from energydiff.landscape.critical import CriticalPoints, critical_points, examine
from energydiff.landscape.curvature import Curvature, curvature
from energydiff.landscape.denoising_bound import denoising_bound
from energydiff.landscape.detection import ood_auroc
from energydiff.landscape.explore import Effort, Landscape, explore, minima
from energydiff.landscape.heldout import held_out_loss, held_out_losses
from energydiff.landscape.likelihood import OdeLikelihood, gaussian_prior, ode_likelihood
from energydiff.landscape.morse import MorseGraph, morse_graph
from energydiff.landscape.search import descend, newton
from energydiff.landscape.surface import Surface

__all__ = [
    "CriticalPoints",
    "Curvature",
    "Effort",
    "HeatResidual",
    "Landscape",
    "MorseGraph",
    "OdeLikelihood",
    "Surface",
    "bits_per_dim",
    "critical_points",
    "curvature",
    "denoising_bound",
    "descend",
    "examine",
    "explore",
    "gaussian_prior",
    "heat_residual",
    "held_out_loss",
    "held_out_losses",
    "jacobian_asymmetry",
    "lossless_bits_per_dim",
    "minima",
    "morse_graph",
    "newton",
    "ode_likelihood",
    "ood_auroc",
]
