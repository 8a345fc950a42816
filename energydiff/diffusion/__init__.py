"""Training objectives, noise levels and the gauge of a trained energy."""

from energydiff.diffusion.batch import NoisyBatch
from energydiff.diffusion.calibration import anchor_gauge, calibrate_gauge
from energydiff.diffusion.noise import (
    CoveringLogNormal,
    LogNormal,
    LogUniform,
    NoiseLevels,
    UniformTime,
)
from energydiff.diffusion.noise_blind import EnergyMatching, EquilibriumMatching
from energydiff.diffusion.objective import (
    DenoisingScoreMatching,
    DualScoreMatching,
    MaximumLikelihood,
    Objective,
    denoising_loss,
)
from energydiff.diffusion.penalties import MonotoneDenoiser, Penalised, RisingFreeEnergy
from energydiff.diffusion.teacher import Teacher

__all__ = [
    "CoveringLogNormal",
    "DenoisingScoreMatching",
    "DualScoreMatching",
    "EnergyMatching",
    "EquilibriumMatching",
    "LogNormal",
    "LogUniform",
    "MaximumLikelihood",
    "MonotoneDenoiser",
    "NoiseLevels",
    "NoisyBatch",
    "Objective",
    "Penalised",
    "RisingFreeEnergy",
    "Teacher",
    "UniformTime",
    "anchor_gauge",
    "calibrate_gauge",
    "denoising_loss",
]
