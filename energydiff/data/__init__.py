"""Data: sources of samples, their held-out split, and images in and out of files.

Each source is a :class:`DataSpec`, a record of its options; ``Folder("path/to/images").open()``
gives its two parts. Nothing here downloads anything.
"""

from energydiff.data.arrays import Arrays
from energydiff.data.cifar10 import Cifar10
from energydiff.data.decoder import Decoder
from energydiff.data.digits import Digits
from energydiff.data.folder import Folder
from energydiff.data.hugging_face import HuggingFace
from energydiff.data.idx import Idx
from energydiff.data.images import image_grid, write_images
from energydiff.data.lit_data import LitData
from energydiff.data.normalization import Normalization
from energydiff.data.source import Source, Splits
from energydiff.data.spec import DataSpec
from energydiff.data.subset import Subset
from energydiff.data.torch_dataset import TorchDataset
from energydiff.data.understood import understood
from energydiff.data.web_dataset import WebDataset

__all__ = [
    "Arrays",
    "Cifar10",
    "DataSpec",
    "Decoder",
    "Digits",
    "Folder",
    "HuggingFace",
    "Idx",
    "LitData",
    "Normalization",
    "Source",
    "Splits",
    "Subset",
    "TorchDataset",
    "WebDataset",
    "image_grid",
    "understood",
    "write_images",
]
