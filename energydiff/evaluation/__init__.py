"""Evaluation: how good samples and denoisers are, measured on data that training never saw."""

from energydiff.evaluation.asymmetry import jacobian_asymmetry
from energydiff.evaluation.classifier import (
    Classifier,
    TrainedClassifier,
    accuracy,
    features,
    train_classifier,
)
from energydiff.evaluation.frechet import frechet_distance, gaussian_statistics
from energydiff.evaluation.heldout import held_out_loss, held_out_losses

__all__ = [
    "Classifier",
    "TrainedClassifier",
    "accuracy",
    "features",
    "frechet_distance",
    "gaussian_statistics",
    "held_out_loss",
    "held_out_losses",
    "jacobian_asymmetry",
    "train_classifier",
]
