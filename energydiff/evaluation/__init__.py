"""What is measured of samples: their quality against data, and how two models compare."""

from energydiff.evaluation.classifier import (
    Classifier,
    TrainedClassifier,
    accuracy,
    features,
    train_classifier,
)
from energydiff.evaluation.comparing import compare, compare_results
from energydiff.evaluation.data import EvaluationData
from energydiff.evaluation.extractors import Extractor, open_extractor
from energydiff.evaluation.frechet import frechet_distance, frechet_infinity, gaussian_statistics
from energydiff.evaluation.images import QUANTISATION, image_batches, open_images
from energydiff.evaluation.kid import kernel_distance
from energydiff.evaluation.measurement import Measurement
from energydiff.evaluation.opened import OpenedModel
from energydiff.evaluation.quality import measure_quality
from energydiff.evaluation.records import Comparison, Result
from energydiff.evaluation.reference import Reference, reference_features, versions
from energydiff.evaluation.settings import Settings

__all__ = [
    "QUANTISATION",
    "Classifier",
    "Comparison",
    "EvaluationData",
    "Extractor",
    "Measurement",
    "OpenedModel",
    "Reference",
    "Result",
    "Settings",
    "TrainedClassifier",
    "accuracy",
    "compare",
    "compare_results",
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
