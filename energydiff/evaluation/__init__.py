"""What is measured of samples: their quality against data, and how two models compare."""

from energydiff.evaluation.classifier import (
    Classifier,
    TrainedClassifier,
    accuracy,
    features,
    train_classifier,
)
from energydiff.evaluation.extractors import Extractor, open_extractor
from energydiff.evaluation.frechet import frechet_distance, gaussian_statistics
from energydiff.evaluation.images import QUANTISATION, image_batches, open_images
from energydiff.evaluation.quality import frechet_infinity, kernel_distance, measure_quality
from energydiff.evaluation.reference import Reference, reference_features, versions

__all__ = [
    "QUANTISATION",
    "Classifier",
    "Extractor",
    "Reference",
    "TrainedClassifier",
    "accuracy",
    "features",
    "frechet_distance",
    "frechet_infinity",
    "gaussian_statistics",
    "image_batches",
    "kernel_distance",
    "measure_quality",
    "open_extractor",
    "open_images",
    "reference_features",
    "train_classifier",
    "versions",
]
