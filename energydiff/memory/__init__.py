"""Associative memories as energies, and retrieval from what is corrupted."""

from energydiff.memory import lagrangians
from energydiff.memory.base import Memory
from energydiff.memory.binary import BinaryMemory, ExponentialMemory, PolynomialMemory
from energydiff.memory.corruptions import (
    BitFlips,
    Blur,
    Corrupted,
    Corruption,
    GaussianNoise,
    Masking,
    Occlusion,
)
from energydiff.memory.downhill import Retrieval
from energydiff.memory.hierarchical import HierarchicalMemory, Layer, TinyBrain
from energydiff.memory.hopfield import BinaryHopfield, ContinuousHopfield
from energydiff.memory.kernels import EpanechnikovMemory, LogSumExpMemory
from energydiff.memory.relaxation import Relaxation, relax
from energydiff.memory.retrieval import retrieve
from energydiff.memory.synapses import Convolution, Dense, Function

__all__ = [
    "BinaryHopfield",
    "BinaryMemory",
    "BitFlips",
    "Blur",
    "ContinuousHopfield",
    "Convolution",
    "Corrupted",
    "Corruption",
    "Dense",
    "EpanechnikovMemory",
    "ExponentialMemory",
    "Function",
    "GaussianNoise",
    "HierarchicalMemory",
    "Layer",
    "LogSumExpMemory",
    "Masking",
    "Memory",
    "Occlusion",
    "PolynomialMemory",
    "Relaxation",
    "Retrieval",
    "TinyBrain",
    "lagrangians",
    "relax",
    "retrieve",
]
