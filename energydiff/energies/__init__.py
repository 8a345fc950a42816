"""Energies: the base class and its gate, closed forms, compositions, inverse problems."""

from energydiff.energies.base import Denoiser, Energy
from energydiff.energies.composition import Guidance, Mixture, Negation, Sum, Temperature
from energydiff.energies.empirical import EmpiricalData
from energydiff.energies.inverse import LinearInverse
from energydiff.energies.mixture import GaussianMixture
from energydiff.energies.noise_range import NoiseRange
from energydiff.energies.score_sum import ScoreSum

__all__ = [
    "Denoiser",
    "EmpiricalData",
    "Energy",
    "GaussianMixture",
    "Guidance",
    "LinearInverse",
    "Mixture",
    "Negation",
    "NoiseRange",
    "ScoreSum",
    "Sum",
    "Temperature",
]
