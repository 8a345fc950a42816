"""Associative memories as energies."""

from energydiff.energies.memory import lagrangians
from energydiff.energies.memory.hierarchical import HierarchicalMemory, Layer, TinyBrain
from energydiff.energies.memory.synapses import Convolution, Dense, Function

__all__ = [
    "Convolution",
    "Dense",
    "Function",
    "HierarchicalMemory",
    "Layer",
    "TinyBrain",
    "lagrangians",
]
