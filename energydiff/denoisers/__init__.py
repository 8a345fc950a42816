"""EDM-preconditioned denoisers: the energy and its unconstrained baseline."""

from energydiff.denoisers.gauge import Gauge
from energydiff.denoisers.preconditioned import (
    POTENTIALS,
    EnergyDenoiser,
    Parametrization,
    UnconstrainedDenoiser,
    build_denoiser,
)

__all__ = [
    "POTENTIALS",
    "EnergyDenoiser",
    "Gauge",
    "Parametrization",
    "UnconstrainedDenoiser",
    "build_denoiser",
]
