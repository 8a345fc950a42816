"""Associative memories as energies."""

from energydiff.energies.memory import lagrangians
from energydiff.energies.memory.base import Memory
from energydiff.energies.memory.binary import BinaryMemory, ExponentialMemory, PolynomialMemory
from energydiff.energies.memory.hierarchical import HierarchicalMemory, Layer, TinyBrain
from energydiff.energies.memory.hopfield import BinaryHopfield, ContinuousHopfield
from energydiff.energies.memory.kernels import EpanechnikovMemory, LogSumExpMemory
from energydiff.energies.memory.synapses import Convolution, Dense, Function

__all__ = [
    "BinaryHopfield",
    "BinaryMemory",
    "ContinuousHopfield",
    "Convolution",
    "Dense",
    "EpanechnikovMemory",
    "ExponentialMemory",
    "Function",
    "HierarchicalMemory",
    "Layer",
    "LogSumExpMemory",
    "Memory",
    "PolynomialMemory",
    "TinyBrain",
    "lagrangians",
]
