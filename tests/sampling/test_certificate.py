"""A certificate is a pure function of a trace: it must fail where V rises, and say where."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from energydiff.denoisers import build_denoiser
from energydiff.energies import EmpiricalData
from energydiff.energies.base import Sigma, sigma_vector
from energydiff.errors import NoEnergyError
from energydiff.potentials import MLP
from energydiff.sampling import Euler, Trace, certify, karras_sigmas

SIGMAS = karras_sigmas(10, 1.0, 10.0)


class WrongGauge(EmpiricalData):
    """E − σ: the same denoiser, but V − σ³ falls as σ rises.

    The true ∂V/∂σ = 2σ KL is at most 2σ log K, less than 3σ² for K = 4 and σ ≥ 1.
    """

    def forward(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
        return super().forward(x, sigma, label) - sigma_vector(sigma, x)

    def value_and_grad(
        self, x: Tensor, sigma: Sigma, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        energy, grad = super().value_and_grad(x, sigma, label)
        return energy - sigma_vector(sigma, x), grad


def trace_of(kind: type[EmpiricalData]) -> Trace:
    energy = kind(torch.randn(4, 3, dtype=torch.float64))
    x = 10 * torch.randn(8, 3, dtype=torch.float64)
    trace = Euler(SIGMAS)(energy, x_init=x).trace
    assert trace is not None
    return trace


def falling() -> Trace:
    """An honest little trace: two steps, three samples, V = 3, 2, 1."""
    free_energy = torch.tensor([[3.0], [2.0], [1.0]]).expand(3, 3).clone()
    half = torch.full((2, 3), -0.5)
    return Trace(
        sigma=torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64),
        free_energy=free_energy,
        energy=torch.ones(3, 3),
        grad_norm=torch.ones(3, 3),
        descent=half,
        landscape=half.clone(),
        bound=-half,
        claim="observed",
    )


def planted(name: str, step: int, sample: int, value: float) -> Trace:
    trace = falling()
    changed = getattr(trace, name).clone()
    changed[step, sample] = value
    return replace(trace, **{name: changed}, digest="")


def test_it_holds_on_an_exact_energy() -> None:
    certificate = certify(trace_of(EmpiricalData))
    assert certificate.holds and certificate.rises == 0 and certificate.steps == 80


def test_it_catches_a_wrong_gauge() -> None:
    """In the landscape part, at every step; the moves themselves are those of the exact energy."""
    certificate = certify(trace_of(WrongGauge))
    assert (certificate.landscape_rises, certificate.descent_rises) == (80, 0)


def test_a_wrong_gauge_fails_it() -> None:
    certificate = certify(trace_of(WrongGauge))
    assert not certificate.holds and certificate.rises > 0 and certificate.worst_rise > 1


def test_nothing_is_found_on_an_honest_trace() -> None:
    certificate = certify(falling())
    assert certificate.holds
    assert (certificate.worst_rise, certificate.worst_step, certificate.worst_sample) == (
        0.0,
        None,
        None,
    )


def test_the_worst_rise_is_located() -> None:
    certificate = certify(planted("descent", 1, 2, 0.75))
    assert not certificate.holds
    assert (certificate.rises, certificate.worst_step, certificate.worst_sample) == (1, 1, 2)
    assert certificate.worst_rise == 0.25


def test_a_rise_of_one_part_is_no_rise_of_the_whole() -> None:
    certificate = certify(planted("landscape", 0, 1, 0.25))
    assert certificate.holds
    assert (certificate.landscape_rises, certificate.descent_rises) == (1, 0)


def test_a_missed_bound_is_counted() -> None:
    certificate = certify(planted("descent", 0, 0, -0.25))
    assert certificate.holds and certificate.bound_misses == 1


def test_a_rise_within_rounding_is_none() -> None:
    eps = torch.finfo(torch.float32).eps
    assert certify(planted("descent", 0, 0, 0.5 + 8 * eps)).holds
    assert not certify(planted("descent", 0, 0, 0.5 + 4096 * eps)).holds


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["descent", "landscape"])
def test_a_change_that_is_not_finite_is_a_rise(name: str, value: float) -> None:
    certificate = certify(planted(name, 1, 2, value))
    assert not certificate.holds and certificate.rises == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("row", [1, 2])
def test_a_free_energy_that_is_not_finite_is_a_rise(row: int, value: float) -> None:
    """The whole trace as a sampler would record it: V, and the changes to and from it."""
    trace = planted("free_energy", row, 2, value)
    energy = trace.energy.clone()
    energy[row, 2] = value
    landscape = trace.free_energy.diff(dim=0) - trace.descent
    certificate = certify(replace(trace, energy=energy, landscape=landscape, digest=""))
    assert not certificate.holds


def test_a_diverging_network_fails_it() -> None:
    """One infinite weight: every energy after the first step is nonsense."""
    model = build_denoiser(MLP((3,), width=8), 0.5)
    with torch.no_grad():
        model.potential.backbone.output.weight[0, 0] = float("inf")
    trace = Euler(SIGMAS)(model, x_init=10 * torch.randn(4, 3)).trace
    assert not certify(trace).holds


def test_nothing_can_be_certified_without_a_trace() -> None:
    with pytest.raises(NoEnergyError, match="nothing to certify"):
        certify(None)


def test_it_is_plain_numbers() -> None:
    certificate = certify(trace_of(WrongGauge)).as_dict()
    assert all(isinstance(value, bool | int | float | str) for value in certificate.values())
