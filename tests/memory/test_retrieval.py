"""Retrieval by clamped descent on exact energies: what theory proves, and what is recalled."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from sklearn.datasets import load_digits
from torch import Tensor
from torch.testing import assert_close

import energydiff
from energydiff.data import Digits
from energydiff.denoisers import build_denoiser
from energydiff.energies import EmpiricalData, Energy, GaussianMixture
from energydiff.errors import NoEnergyError, UserError
from energydiff.memory import (
    BitFlips,
    Blur,
    Corruption,
    GaussianNoise,
    LogSumExpMemory,
    Masking,
    Occlusion,
    retrieve,
)
from energydiff.potentials import MLP
from energydiff.sampling import Euler, geometric_sigmas

PRETRAINED = Path(__file__).parents[2] / "pretrained/digits_energy_unet"


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixture(seed: int) -> GaussianMixture:
    return GaussianMixture(normal(seed, 5, 2, 3), torch.linspace(0.1, 0.4, 5, dtype=torch.float64))


MAKE = {"points": lambda seed: EmpiricalData(normal(seed, 6, 2, 3)), "mixture": mixture}


@pytest.mark.parametrize("kind", MAKE)
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    clamped=st.booleans(),
    start=st.floats(0.05, 10),
    low=st.floats(0.02, 0.9),
    levels=st.integers(0, 8),
)
def test_v_falls_by_its_bound_from_anywhere(
    kind: str, seed: int, clamped: bool, start: float, low: float, levels: int
) -> None:
    """Descent ≤ −η(1 − η/2)‖P∇V‖², any grid, any entries held: the restriction of V is as good."""
    energy, x = MAKE[kind](seed), start * normal(seed + 1, 4, 2, 3)
    clamp = normal(seed + 2, 4, 2, 3) > 0 if clamped else None
    sigmas = low if levels == 0 else geometric_sigmas(levels, low * min(start, 1), start)
    result = retrieve(energy, x, clamp, sigmas=sigmas, steps=10)
    cert = result.certificate
    assert cert.claim == "proved" and cert.holds
    assert cert.descent_rises == cert.landscape_rises == 0
    # Next to a point the bound is an equality up to the rounding of the distance itself.
    assert float((result.trace.descent + result.trace.bound).max()) < 1e-11 * (1 + start**2)
    if clamp is not None:
        assert torch.equal(result.samples[clamp], x[clamp])
    residual = result.samples - energy.denoise(result.samples, float(result.trace.sigma[-1]))
    if clamp is not None:
        residual = residual.masked_fill(clamp, 0)
    assert_close(residual.flatten(1).norm(dim=1), result.trace.grad_norm[-1])
    assert torch.equal(result.at_rest, residual.flatten(1).abs().amax(1) <= 1e-6)


def test_the_bound_is_that_of_the_projected_gradient() -> None:
    """With the whole gradient in it the bound would be missed."""
    energy, x = mixture(0), 2 * normal(1, 50, 2, 3)
    clamp = normal(2, 50, 2, 3) > 0
    trace = retrieve(energy, x, clamp, sigmas=0.5, steps=1).trace
    whole = 0.5 * (x - energy.denoise(x, 0.5)).flatten(1).square().sum(1)
    assert bool((trace.descent[0] <= -trace.bound[0]).all())
    assert bool((trace.descent[0] > -whole).any())


@pytest.mark.parametrize("mu", [0.3, 1.0])
@pytest.mark.parametrize("ratio", [0.5, 0.8, 0.95])
def test_two_points_rest_in_their_wells(mu: float, ratio: float) -> None:
    """T3: x = μ tanh(μx/σ²), from either side; above σ = μ the middle."""
    energy, sigma = EmpiricalData(torch.tensor([[mu], [-mu]], dtype=torch.float64)), ratio * mu
    well = brentq(lambda x: x - mu * math.tanh(mu * x / sigma**2), 1e-3 * mu, 2 * mu, xtol=1e-14)
    starts = torch.tensor([[0.01], [-0.01], [3.0]]).double()
    result = retrieve(energy, starts, sigmas=sigma, steps=2000, tolerance=1e-13)
    assert bool(result.at_rest.all())
    assert_close(
        result.samples,
        torch.tensor([[well], [-well], [well]], dtype=torch.float64),
        atol=1e-10,
        rtol=0,
    )
    middle = retrieve(energy, starts, sigmas=1.1 * mu, steps=2000, tolerance=1e-13)
    assert_close(middle.samples, torch.zeros(3, 1).double(), atol=1e-10, rtol=0)


def digits(count: int) -> Tensor:
    return torch.tensor(load_digits().images[:count, None] / 8 - 1)


@pytest.mark.parametrize(
    ("corruption", "start"),
    [
        (GaussianNoise(0.3), 0.3),
        (Masking(0.3), 1.5),
        (Occlusion(4, 4), 1.5),
        (Occlusion(2, 8, at=(6, 0)), 1.5),
        (Blur(0.5), 0.2),
    ],
    ids=repr,
)
def test_stored_digits_come_back_from_any_corruption(corruption: Corruption, start: float) -> None:
    """All of 100, with the data themselves as the energy."""
    stored = digits(100)
    bad = corruption(stored)
    result = retrieve(
        EmpiricalData(stored), bad.x, bad.known, sigmas=geometric_sigmas(20, 0.1, start)
    )
    assert bool(result.at_rest.all()) and result.certificate.holds
    assert_close(result.samples, stored, atol=1e-6, rtol=0)


def test_stored_bits_come_back_from_flips() -> None:
    stored = normal(0, 100, 8, 8).sign()
    bad = BitFlips(0.2)(stored)
    result = retrieve(EmpiricalData(stored), bad.x, sigmas=geometric_sigmas(10, 0.1, 0.9))
    assert bool(result.at_rest.all()) and result.certificate.holds
    assert_close(result.samples, stored, atol=1e-6, rtol=0)


def test_with_nothing_held_the_grid_is_eulers() -> None:
    energy, sigmas, x = mixture(0), geometric_sigmas(8, 0.1, 3.0), 3 * normal(1, 4, 2, 3)
    sampled = Euler(sigmas, final_denoise=True)(energy, x_init=x)
    result = retrieve(energy, x, sigmas=sigmas, steps=1)
    assert_close(result.samples, sampled.samples)
    assert sampled.trace is not None
    assert_close(result.trace.arrays(), sampled.trace.arrays())


def test_at_one_noise_it_is_the_memory() -> None:
    """Mean shift on V at σ² = 1/β is the log-sum-exp memory's update."""
    patterns = normal(0, 6, 10)
    patterns /= patterns.norm(dim=1, keepdim=True)
    x, clamp = normal(1, 3, 10), torch.arange(10) < 4
    memory = LogSumExpMemory(9.0).store(patterns).retrieve(x, clamp, steps=7)
    data = retrieve(EmpiricalData(patterns), x, clamp, sigmas=1 / 3, steps=7)
    assert_close(data.samples, memory.samples)
    assert_close(data.trace.descent, memory.trace.descent, atol=1e-12, rtol=1e-6)
    assert_close(data.trace.bound, memory.trace.bound)


def test_steps_run_out_where_the_way_is_long() -> None:
    """Close to the pitchfork the approach is slow: one of two samples is reported unfinished."""
    energy = EmpiricalData(torch.tensor([[1.0], [-1.0]]).double())
    x = torch.tensor([[0.0], [1.0]]).double()
    result = retrieve(energy, x, sigmas=0.99, steps=5)
    assert result.at_rest.tolist() == [True, False] and result.certificate.holds
    assert result.trace.descent.shape == (5, 2)
    assert torch.equal(result.samples[0], x[0]), "a sample at rest is not moved"


class Rough(Energy):
    """An energy of no density: its V is a bowl with steep ripples, so full steps overshoot."""

    shape = (2,)

    def forward(self, x: Tensor, sigma, label=None) -> Tensor:  # type: ignore[no-untyped-def]
        sigma = torch.as_tensor(sigma, dtype=x.dtype)
        ripples = (0.5 * x.square() + 0.5 * (5 * x).cos()).sum(1) / sigma**2
        return ripples + torch.log(2 * math.pi * sigma**2)


def test_steps_are_shortened_where_v_would_rise() -> None:
    energy, x = Rough(), 3 * normal(0, 50, 2)
    full = x - (x - energy.denoise(x, 0.5))
    assert bool((energy.free_energy(full, 0.5) > energy.free_energy(x, 0.5)).any())
    result = retrieve(energy, x, sigmas=0.5, steps=500, tolerance=1e-4)
    assert result.certificate.claim == "enforced" and result.certificate.holds
    assert result.certificate.descent_rises == 0
    assert float(result.at_rest.double().mean()) > 0.9
    annealed = retrieve(energy, x, sigmas=[1.0, 0.5])
    assert annealed.certificate.claim == "observed"


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({}, "give retrieve sigmas"),
        ({"sigmas": 0.0}, "sigmas must be positive"),
        ({"sigmas": [0.1, 0.2]}, "fall strictly"),
        ({"sigmas": 0.5, "steps": 0}, "steps"),
        ({"sigmas": 0.5, "tolerance": -1.0}, "tolerance"),
        ({"sigmas": 0.5, "clamp": torch.zeros(2, 3)}, "clamp must be boolean"),
    ],
)
def test_mistakes_are_named(arguments: dict, match: str) -> None:
    with pytest.raises(UserError, match=match):
        retrieve(mixture(0), normal(0, 1, 2, 3), **arguments)


def test_other_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="takes floating point samples"):
        retrieve(mixture(0), normal(0, 1, 7), sigmas=0.5)
    with pytest.raises(UserError, match="knows no noise"):
        retrieve(LogSumExpMemory().store(normal(0, 2, 3)), normal(0, 1, 3), sigmas=0.5)


LEARNED = [
    (GaussianNoise(0.5), 0.5),
    (Masking(0.5), 1.0),
    (Occlusion(4, 4), 1.0),
    (Blur(1.0), 0.4),
]


@pytest.mark.parametrize(("corruption", "start"), LEARNED, ids=repr)
def test_a_trained_energy_restores_digits_it_never_saw(
    corruption: Corruption, start: float
) -> None:
    """Closer to the original than the corrupted image and than the mean image; V never rises."""
    model = energydiff.load(PRETRAINED).require_energy()
    data = Digits().open()
    encode = data.train.normalization.encode
    mean = encode(torch.stack([data.train[i][0] for i in range(200)])).mean(0)
    x = encode(torch.stack([data.held_out[i][0] for i in range(4)]))
    bad = corruption(x)
    sigmas = geometric_sigmas(10, 0.05, start)
    result = retrieve(model, bad.x, bad.known, sigmas=sigmas, steps=3)
    assert result.certificate.claim == "observed" and result.certificate.holds
    assert result.certificate.descent_rises == 0
    assert not result.at_rest.any(), "three steps are not enough, and it says so"
    error = [float((y - x).square().mean()) for y in (result.samples, bad.x, mean.expand_as(x))]
    assert error[0] < 0.6 * min(error[1:])
    if bad.known is not None:
        assert torch.equal(result.samples[bad.known], x[bad.known])


def test_at_one_noise_a_trained_energy_is_held_to_descend() -> None:
    model = energydiff.load(PRETRAINED).require_energy()
    result = retrieve(model, normal(0, 2, 1, 8, 8).float(), sigmas=0.3, steps=10)
    assert result.certificate.claim == "enforced" and result.certificate.holds


def test_a_baseline_has_nothing_to_descend() -> None:
    baseline = build_denoiser(MLP((4,), width=8, depth=1), 0.5, "unconstrained")
    with pytest.raises(NoEnergyError):
        retrieve(baseline, torch.zeros(1, 4), sigmas=0.5)  # type: ignore[arg-type]
