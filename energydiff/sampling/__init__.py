"""Samplers, what they record (trace) and what that proves (certificate)."""

from energydiff.sampling.ancestral import Ancestral
from energydiff.sampling.armijo import Armijo
from energydiff.sampling.certificate import Certificate, certify, rising
from energydiff.sampling.churn import Churn
from energydiff.sampling.completion import Completion, complete
from energydiff.sampling.corruptions import (
    BitFlips,
    Blur,
    Corrupted,
    Corruption,
    GaussianNoise,
    Masking,
    Occlusion,
)
from energydiff.sampling.curvature import Curvature, curvature, noise_slope
from energydiff.sampling.dpm_solver import DPMSolver2M
from energydiff.sampling.euler import Euler
from energydiff.sampling.gradient_descent import GradientDescent, resting_norm
from energydiff.sampling.grids import (
    geometric_sigmas,
    given_sigmas,
    karras_sigmas,
    linear_sigmas,
)
from energydiff.sampling.guard import GuardedEuler, GuardedHeun
from energydiff.sampling.heun import Heun
from energydiff.sampling.hmc import HMC
from energydiff.sampling.inverse import LinearInverse
from energydiff.sampling.langevin import Langevin
from energydiff.sampling.mala import MALA
from energydiff.sampling.nesterov import Nesterov
from energydiff.sampling.relaxation import Relaxation, relax
from energydiff.sampling.retrieval import Retrieval, retrieve
from energydiff.sampling.sampler import Sampler, SampleResult
from energydiff.sampling.trace import Claims, Trace, join_traces

__all__ = [
    "HMC",
    "MALA",
    "Ancestral",
    "Armijo",
    "BitFlips",
    "Blur",
    "Certificate",
    "Churn",
    "Claims",
    "Completion",
    "Corrupted",
    "Corruption",
    "Curvature",
    "DPMSolver2M",
    "Euler",
    "GaussianNoise",
    "GradientDescent",
    "GuardedEuler",
    "GuardedHeun",
    "Heun",
    "Langevin",
    "LinearInverse",
    "Masking",
    "Nesterov",
    "Occlusion",
    "Relaxation",
    "Retrieval",
    "SampleResult",
    "Sampler",
    "Trace",
    "certify",
    "complete",
    "curvature",
    "geometric_sigmas",
    "given_sigmas",
    "join_traces",
    "karras_sigmas",
    "linear_sigmas",
    "noise_slope",
    "relax",
    "resting_norm",
    "retrieve",
    "rising",
]
