"""Evaluation: how good samples and denoisers are, measured on data that training never saw."""

from energydiff.evaluation.asymmetry import jacobian_asymmetry
from energydiff.evaluation.bits import bits_per_dim, lossless_bits_per_dim
from energydiff.evaluation.classifier import (
    Classifier,
    TrainedClassifier,
    accuracy,
    features,
    train_classifier,
)
from energydiff.evaluation.consistency import HeatResidual, heat_residual
from energydiff.evaluation.denoising_bound import denoising_bound
from energydiff.evaluation.detection import ood_auroc
from energydiff.evaluation.frechet import frechet_distance, gaussian_statistics
from energydiff.evaluation.heldout import held_out_loss, held_out_losses
from energydiff.evaluation.likelihood import OdeLikelihood, gaussian_prior, ode_likelihood

__all__ = [
    "Classifier",
    "HeatResidual",
    "OdeLikelihood",
    "TrainedClassifier",
    "accuracy",
    "bits_per_dim",
    "denoising_bound",
    "features",
    "frechet_distance",
    "gaussian_prior",
    "gaussian_statistics",
    "heat_residual",
    "held_out_loss",
    "held_out_losses",
    "jacobian_asymmetry",
    "lossless_bits_per_dim",
    "ode_likelihood",
    "ood_auroc",
    "train_classifier",
]
