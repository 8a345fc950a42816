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
from energydiff.evaluation.extractors import Extractor, open_extractor
from energydiff.evaluation.frechet import frechet_distance, gaussian_statistics
from energydiff.evaluation.heldout import held_out_loss, held_out_losses
from energydiff.evaluation.images import QUANTISATION, image_batches, open_images
from energydiff.evaluation.likelihood import OdeLikelihood, gaussian_prior, ode_likelihood
from energydiff.evaluation.quality import frechet_infinity, kernel_distance, measure_quality
from energydiff.evaluation.reference import Reference, reference_features, versions

__all__ = [
    "QUANTISATION",
    "Classifier",
    "Extractor",
    "HeatResidual",
    "OdeLikelihood",
    "Reference",
    "TrainedClassifier",
    "accuracy",
    "bits_per_dim",
    "denoising_bound",
    "features",
    "frechet_distance",
    "frechet_infinity",
    "gaussian_prior",
    "gaussian_statistics",
    "heat_residual",
    "held_out_loss",
    "held_out_losses",
    "image_batches",
    "jacobian_asymmetry",
    "kernel_distance",
    "lossless_bits_per_dim",
    "measure_quality",
    "ode_likelihood",
    "ood_auroc",
    "open_extractor",
    "open_images",
    "reference_features",
    "train_classifier",
    "versions",
]
