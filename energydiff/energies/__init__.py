"""Energies: the base class and its differentiation gate, the closed forms, and compositions."""

from energydiff.energies.base import Denoiser, Energy
from energydiff.energies.composition import Guidance, Mixture, Negation, Sum, Temperature
from energydiff.energies.empirical import EmpiricalData
from energydiff.energies.mixture import GaussianMixture

__all__ = [
    "Denoiser",
    "EmpiricalData",
    "Energy",
    "GaussianMixture",
    "Guidance",
    "Mixture",
    "Negation",
    "Sum",
    "Temperature",
]
