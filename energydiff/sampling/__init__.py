"""Samplers, what they record (trace) and what that proves (certificate)."""

from energydiff.sampling.certificate import Certificate, certify
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
from energydiff.sampling.euler import Euler
from energydiff.sampling.grids import (
    geometric_sigmas,
    given_sigmas,
    karras_sigmas,
    linear_sigmas,
)
from energydiff.sampling.heun import Heun
from energydiff.sampling.relaxation import Relaxation, relax
from energydiff.sampling.retrieval import Retrieval, retrieve
from energydiff.sampling.sampler import Sampler, SampleResult
from energydiff.sampling.trace import Trace, join_traces

__all__ = [
    "BitFlips",
    "Blur",
    "Certificate",
    "Completion",
    "Corrupted",
    "Corruption",
    "Euler",
    "GaussianNoise",
    "Heun",
    "Masking",
    "Occlusion",
    "Relaxation",
    "Retrieval",
    "SampleResult",
    "Sampler",
    "Trace",
    "certify",
    "complete",
    "geometric_sigmas",
    "given_sigmas",
    "join_traces",
    "karras_sigmas",
    "linear_sigmas",
    "relax",
    "retrieve",
]
