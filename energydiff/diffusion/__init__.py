"""Training objectives, noise levels and the gauge of a trained energy."""

from energydiff.diffusion.calibration import anchor_gauge, calibrate_gauge
from energydiff.diffusion.noise import LogNormal, LogUniform, NoiseLevels
from energydiff.diffusion.objective import (
    DenoisingScoreMatching,
    DualScoreMatching,
    Objective,
    denoising_loss,
)

__all__ = [
    "DenoisingScoreMatching",
    "DualScoreMatching",
    "LogNormal",
    "LogUniform",
    "NoiseLevels",
    "Objective",
    "anchor_gauge",
    "calibrate_gauge",
    "denoising_loss",
]
