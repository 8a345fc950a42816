"""Every memory: energy falls at every update, held entries stay, mistakes are named."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from energydiff.energies import EmpiricalData
from energydiff.errors import UserError
from energydiff.memory import (
    BinaryHopfield,
    ContinuousHopfield,
    EpanechnikovMemory,
    ExponentialMemory,
    LogSumExpMemory,
    Memory,
    PolynomialMemory,
)
from energydiff.sampling import Euler, linear_sigmas

ALL = {
    "polynomial 2": lambda: PolynomialMemory(2),
    "polynomial 3": lambda: PolynomialMemory(3),
    "polynomial 4": lambda: PolynomialMemory(4),
    "exponential": lambda: ExponentialMemory(0.5),
    "log-sum-exp": lambda: LogSumExpMemory(0.3),
    "Epanechnikov": lambda: EpanechnikovMemory(0.06),
    "Hopfield, Hebb": lambda: BinaryHopfield(),
    "Hopfield, pseudo-inverse": lambda: BinaryHopfield("pseudo-inverse"),
    "continuous, Hebb": lambda: ContinuousHopfield(3.0),
    "continuous, pseudo-inverse": lambda: ContinuousHopfield(3.0, "pseudo-inverse"),
}
every = pytest.mark.parametrize("make", ALL.values(), ids=ALL)


def signs(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, shape, generator=generator).double() * 2 - 1


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@every
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31 - 1), st.booleans(), st.sampled_from([3, 12]))
def test_the_energy_falls_at_every_update(
    make: type[Memory], seed: int, clamped: bool, count: int
) -> None:
    """From anywhere, near or beyond capacity, with and without entries held."""
    patterns = signs(seed, count, 4, 5)
    memory = make().store(patterns)
    x = patterns[:3] + normal(seed + 1, 3, 4, 5)
    clamp = normal(seed + 2, 3, 4, 5) > 0 if clamped else None
    if clamp is not None:
        x = torch.where(clamp, patterns[:3], x)
    result = memory.retrieve(x, clamp)
    cert = result.certificate
    assert cert.holds and cert.claim == "proved"
    assert cert.descent_rises == cert.landscape_rises == cert.bound_misses == 0
    assert result.samples.shape == x.shape
    if clamp is not None:
        assert torch.equal(result.samples[clamp], x[clamp])
    assert_close(memory.energy(result.samples), result.trace.energy[-1])


@every
def test_a_few_patterns_are_completed_from_half(make: type[Memory]) -> None:
    patterns = signs(0, 3, 8, 16)
    memory = make().store(patterns)
    clamp = torch.zeros(8, 16, dtype=torch.bool)
    clamp[:4] = True
    if isinstance(memory, EpanechnikovMemory):  # half a pattern away: 8; other patterns: 11 on
        memory.beta = 2 / 9.0**2
    result = memory.retrieve(torch.where(clamp, patterns, 0.0), clamp)
    assert bool(result.at_rest.all()) and result.certificate.holds
    assert torch.equal(result.samples.sign(), patterns)


@every
def test_the_gradient_matches_differences(make: type[Memory]) -> None:
    """Along a line, through the gate; σ² is a temperature."""
    memory = make().store(signs(0, 3, 20))
    x, v, h = 0.1 * normal(1, 2, 20).tanh() + 0.5 * signs(0, 2, 20), normal(2, 2, 20), 1e-5
    slope = (memory.energy(x + h * v) - memory.energy(x - h * v)) / (2 * h)
    assert_close((memory.value_and_grad(x, 1.0)[1] * v).sum(1), slope, rtol=1e-6, atol=1e-8)
    assert_close(memory(x, 0.5), 4 * memory.energy(x))


@every
def test_mistakes_are_named(make: type[Memory]) -> None:
    memory = make()
    with pytest.raises(UserError, match="empty"):
        memory.energy(torch.zeros(1, 4))
    with pytest.raises(UserError, match="K >= 1"):
        memory.store(torch.zeros(0, 4))
    memory.store(signs(0, 2, 4))
    with pytest.raises(UserError, match="ask for"):
        memory.retrieve(torch.zeros(1, 5))
    with pytest.raises(UserError, match="clamp must be boolean"):
        memory.retrieve(torch.zeros(1, 4), torch.zeros(4))
    with pytest.raises(UserError, match="steps"):
        memory.retrieve(torch.zeros(1, 4), steps=0)
    if not isinstance(memory, LogSumExpMemory | EpanechnikovMemory):
        with pytest.raises(UserError, match="-1 and"):
            memory.store(torch.full((2, 4), 1.5))


@pytest.mark.parametrize("distance", [0.0, 0.1, 0.3])
def test_log_sum_exp_retrieves_in_one_update(distance: float) -> None:
    """‖x' − ξ_k‖ ≤ 2M(K − 1) exp(−β(Δ_k − 2M‖x − ξ_k‖)), M = 1."""
    beta, patterns = 60.0, normal(0, 50, 256)
    patterns /= patterns.norm(dim=1, keepdim=True)
    gram = patterns @ patterns.T
    separation = 1 - gram.fill_diagonal_(-1).amax(1)
    offset = normal(1, 50, 256)
    x = patterns + distance * offset / offset.norm(dim=1, keepdim=True)
    result = LogSumExpMemory(beta).store(patterns).retrieve(x, steps=1)
    error = (result.samples - patterns).norm(dim=1)
    bound = 2 * 49 * (-beta * (separation - 2 * distance)).exp()
    assert bool((error <= bound + 1e-12).all())
    assert distance > 0.1 or float(bound.max()) < 1e-6, "a bound that says something"
    assert float(error.max()) < 1e-4


def test_log_sum_exp_is_the_free_energy_of_its_data() -> None:
    """V of EmpiricalData at σ² = 1/β, patterns of one norm; its gradient step is the denoiser."""
    patterns, x, beta = 3 * signs(0, 5, 12), normal(1, 4, 12), 0.7
    memory, data = LogSumExpMemory(beta).store(patterns), EmpiricalData(patterns)
    offset = 0.5 * 9 * 12 + torch.tensor(5.0).double().log() / beta
    assert_close(data.free_energy(x, beta**-0.5), memory.energy(x) + offset)
    assert_close(data.denoise(x, beta**-0.5), memory.denoise(x, 1.0))


def test_epanechnikov_reaches_a_lone_pattern_at_once_and_nothing_from_afar() -> None:
    patterns = torch.eye(4, dtype=torch.float64)
    memory = EpanechnikovMemory(beta=2 / 0.6**2).store(patterns)
    near, far = patterns + 0.1, patterns + 10.0
    assert_close(memory.retrieve(near, steps=1).samples, patterns, rtol=0, atol=0)
    result = memory.retrieve(far)
    assert torch.equal(result.samples, far) and bool(result.at_rest.all())


def test_a_memory_is_a_denoiser_that_samplers_take() -> None:
    memory = LogSumExpMemory(2.0).store(signs(0, 3, 6))
    result = Euler(linear_sigmas(10, 0.1, 1.0))(memory, x_init=normal(1, 4, 6))
    assert result.trace is not None and bool(result.samples.isfinite().all())
