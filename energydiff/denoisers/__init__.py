"""EDM-preconditioned denoisers: the energy and its unconstrained baseline."""

from energydiff.denoisers.gauge import Gauge
from energydiff.denoisers.preconditioned import (
    EnergyDenoiser,
    Parametrization,
    UnconstrainedDenoiser,
    build_denoiser,
)

__all__ = [
    "EnergyDenoiser",
    "Gauge",
    "Parametrization",
    "UnconstrainedDenoiser",
    "build_denoiser",
]
