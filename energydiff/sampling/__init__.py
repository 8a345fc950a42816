"""Samplers, what they record (trace) and what that proves (certificate)."""

from energydiff.sampling.ancestral import Ancestral
from energydiff.sampling.armijo import Armijo
from energydiff.sampling.certificate import Certificate, certify, rising
from energydiff.sampling.chains import (
    ChainReport,
    effective_sample_size,
    report_chains,
    split_rhat,
)
from energydiff.sampling.choose import make_sampler, sampler_class
from energydiff.sampling.churn import Churn
from energydiff.sampling.diagnosis import Diagnosis
from energydiff.sampling.dpm_solver import DPMSolver2M
from energydiff.sampling.euler import Euler
from energydiff.sampling.gradient_descent import GradientDescent, resting_norm
from energydiff.sampling.grids import (
    geometric_sigmas,
    given_sigmas,
    karras_sigmas,
    linear_sigmas,
)
from energydiff.sampling.guard import Guarded
from energydiff.sampling.heun import Heun
from energydiff.sampling.hmc import HMC
from energydiff.sampling.langevin import Langevin
from energydiff.sampling.mala import MALA
from energydiff.sampling.nesterov import Nesterov
from energydiff.sampling.population import PopulationReport
from energydiff.sampling.sampler import Sampler, SampleResult
from energydiff.sampling.sequential_monte_carlo import SequentialMonteCarlo
from energydiff.sampling.trace import Claims, Trace, join_traces

__all__ = [
    "HMC",
    "MALA",
    "Ancestral",
    "Armijo",
    "Certificate",
    "ChainReport",
    "Churn",
    "Claims",
    "DPMSolver2M",
    "Diagnosis",
    "Euler",
    "GradientDescent",
    "Guarded",
    "Heun",
    "Langevin",
    "Nesterov",
    "PopulationReport",
    "SampleResult",
    "Sampler",
    "SequentialMonteCarlo",
    "Trace",
    "certify",
    "effective_sample_size",
    "geometric_sigmas",
    "given_sigmas",
    "join_traces",
    "karras_sigmas",
    "linear_sigmas",
    "make_sampler",
    "report_chains",
    "resting_norm",
    "rising",
    "sampler_class",
    "split_rhat",
]
