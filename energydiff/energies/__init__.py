"""Energies: the base class and its differentiation gate, and the closed forms."""

from energydiff.energies.base import Denoiser, Energy
from energydiff.energies.empirical import EmpiricalData
from energydiff.energies.mixture import GaussianMixture

__all__ = ["Denoiser", "EmpiricalData", "Energy", "GaussianMixture"]
