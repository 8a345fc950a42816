"""Learned models: EDM-preconditioned and natural energies, the baseline, noise-blind energies."""

from energydiff.denoisers.blind import STEP_SIZE, BlindEnergy
from energydiff.denoisers.build import build_denoiser
from energydiff.denoisers.description import network_of
from energydiff.denoisers.gauge import Gauge
from energydiff.denoisers.natural import NaturalEnergy
from energydiff.denoisers.preconditioned import EnergyDenoiser, UnconstrainedDenoiser

__all__ = [
    "STEP_SIZE",
    "BlindEnergy",
    "EnergyDenoiser",
    "Gauge",
    "NaturalEnergy",
    "UnconstrainedDenoiser",
    "build_denoiser",
    "network_of",
]
