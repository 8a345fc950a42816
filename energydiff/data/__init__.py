"""Data: sources of samples, their held-out split, and images in and out of files.

``open_data`` is the one door; nothing here downloads anything.
"""

from energydiff.data.images import image_grid, write_images
from energydiff.data.normalization import Normalization
from energydiff.data.open import open_data
from energydiff.data.source import Source, Splits

__all__ = ["Normalization", "Source", "Splits", "image_grid", "open_data", "write_images"]
