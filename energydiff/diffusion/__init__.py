"""Training objectives, noise levels and the gauge of a trained energy."""

from energydiff.diffusion.calibration import calibrate_gauge
from energydiff.diffusion.noise import LogNormal, LogUniform, NoiseLevels
from energydiff.diffusion.objective import denoising_loss

__all__ = ["LogNormal", "LogUniform", "NoiseLevels", "calibrate_gauge", "denoising_loss"]
