"""Extractors: networks whose features of images are compared in place of the images."""

from energydiff.evaluation.extractors.base import Extractor
from energydiff.evaluation.extractors.open import open_extractor

__all__ = ["Extractor", "open_extractor"]
