"""Masked completion: images from a part of their patches, by descent of an energy of tokens."""

from energydiff.completion.descent import Completion, complete
from energydiff.completion.network import MaskedCompletion

__all__ = ["Completion", "MaskedCompletion", "complete"]
