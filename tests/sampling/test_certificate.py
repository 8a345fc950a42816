"""A certificate is a pure function of a trace: it must fail where V rises, and say where."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from energydiff.denoisers import build_denoiser
from energydiff.energies import EmpiricalData, Energy
from energydiff.energies.base import Sigma, sigma_vector
from energydiff.errors import NoEnergyError, UserError
from energydiff.potentials import MLP
from energydiff.sampling import (
    Euler,
    GradientDescent,
    Guarded,
    Trace,
    certify,
    join_traces,
    karras_sigmas,
    rising,
)

SIGMAS = karras_sigmas(10, 1.0, 10.0)


class WrongGauge(EmpiricalData):
    """E − σ: the same denoiser, but V − σ³ falls as σ rises.

    The true ∂V/∂σ = 2σ KL is at most 2σ log K, less than 3σ² for K = 4 and σ ≥ 1.
    """

    def forward(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
        return super().forward(x, sigma, label) - sigma_vector(sigma, x)

    def gradient(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        energy, grad = super().gradient(x, sigma, label)
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


def edited(name: str) -> Trace:
    """A trace with one number of one array changed in place, by one rounding or by one refusal."""
    energy = EmpiricalData(torch.randn(4, 3, dtype=torch.float64))
    trace = Guarded(Euler(SIGMAS))(energy, x_init=10 * torch.randn(8, 3, dtype=torch.float64)).trace
    assert trace is not None
    array = trace.arrays()[name]
    last = array.flatten()[-1]
    step = last.new_tensor(torch.inf) if last.is_floating_point() else last + 1
    array.view(-1)[-1] = torch.nextafter(last, step) if last.is_floating_point() else step
    return trace


ARRAYS = [
    *("sigma", "free_energy", "energy", "grad_norm", "descent", "landscape", "bound"),
    *("x_norm", "fallbacks"),
]


@pytest.mark.parametrize("name", ARRAYS)
def test_a_trace_edited_by_hand_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="changed after it was recorded"):
        certify(edited(name))


@pytest.mark.parametrize(
    "change",
    [
        {"descent": -torch.ones(2, 3)},
        {"claim": "proved"},
        {"landscape_claim": "proved"},
        {"digest": "0" * 64},
    ],
)
def test_a_trace_with_a_field_replaced_is_refused(change: dict) -> None:
    with pytest.raises(UserError, match="changed after it was recorded"):
        certify(replace(falling(), **change))


def test_edits_do_not_survive_joining_or_selecting() -> None:
    with pytest.raises(UserError, match="changed after it was recorded"):
        join_traces([trace_of(EmpiricalData), edited("descent")])
    with pytest.raises(UserError, match="changed after it was recorded"):
        edited("descent").select(slice(2))


def test_joined_and_selected_traces_are_sealed_anew() -> None:
    trace = trace_of(EmpiricalData)
    order = torch.randperm(8)
    joined = join_traces([trace.select(order[:3]), trace.select(order[3:])])
    assert certify(joined).holds
    assert joined.select(order.argsort()).digest == trace.digest


class Bump(EmpiricalData):
    """A hill of 3 nats and width 0.3 planted in E where trajectories pass."""

    exact = False

    def forward(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
        hill = (-(x.norm(dim=1) - 4).square() / (2 * 0.3**2)).exp()
        return super().forward(x, sigma, label) + 3 * hill

    def gradient(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        return Energy.gradient(self, x, sigma, label)


def test_a_planted_bump_fails_it_where_it_is() -> None:
    """And nowhere else: steps that end far from the hill are those of the exact energy."""
    trace = trace_of(Bump)
    certificate = certify(trace)
    assert not certificate.holds and certificate.descent_rises > 0
    assert trace.x_norm is not None and certificate.worst_step is not None
    radius = trace.x_norm[:, certificate.worst_sample]
    near = radius[certificate.worst_step : certificate.worst_step + 2]
    assert bool(((near - 4).abs() < 1.5).any())


@pytest.mark.parametrize(("step", "holds"), [(1.9, True), (2.1, False)])
def test_too_large_a_step_fails_it(step: float, holds: bool) -> None:
    """On one point ∇²V = 1: descent at η < 2, and a rise at every step beyond."""
    energy = EmpiricalData(torch.zeros(1, 3, dtype=torch.float64))
    x = torch.randn(8, 3, dtype=torch.float64)
    certificate = certify(GradientDescent(10, step)(energy, x_init=x).trace)
    assert certificate.holds is holds
    assert certificate.descent_rises == (0 if holds else 80)
    assert certificate.claim == ("proved" if holds else "observed")


def test_where_in_noise_and_in_how_many_samples() -> None:
    certificate = certify(planted("descent", 1, 2, 0.75))
    assert (certificate.worst_sigma, certificate.rising_samples) == (2.0, 1)
    assert rising(planted("descent", 1, 2, 0.75)).nonzero().tolist() == [[1, 2]]


def test_the_share_of_the_bound() -> None:
    """descent = −½ and bound = ½ everywhere but in one place, where it falls by half of that."""
    certificate = certify(planted("descent", 0, 0, -0.25))
    assert (certificate.armijo_min, certificate.armijo_median) == (0.5, 1.0)
    exact = certify(trace_of(EmpiricalData))
    assert exact.armijo_min is not None and exact.armijo_min >= 1 - 1e-9


def test_the_rounding_of_x_is_allowed_for() -> None:
    """Next to an isolated point of float64 data the bound is an equality, and far from 0 x is
    rounded by more than V is small."""
    energy = EmpiricalData(1000 + 10 * torch.randn(4, 3, dtype=torch.float64))
    x = energy.data[torch.randint(4, (50,))] + 10 * torch.randn(50, 3, dtype=torch.float64)
    trace = Euler(karras_sigmas(20, 0.02, 10.0), final_denoise=True)(energy, x_init=x).trace
    assert trace is not None and certify(trace).bound_misses == 0
    assert certify(replace(trace, x_norm=None, digest="")).bound_misses > 0


def test_the_largest_rounding_is_where_the_terms_of_v_are_large() -> None:
    """By σ² E at σ = 10, and by far less in the last step, at σ = 1."""
    certificate = certify(trace_of(EmpiricalData))
    assert (certificate.samples, certificate.tolerance_sigma) == (8, 10.0)
    assert 0 < certificate.final_tolerance < certificate.tolerance / 30


def test_nothing_can_be_certified_without_a_trace() -> None:
    with pytest.raises(NoEnergyError, match="nothing to certify"):
        certify(None)


def test_it_is_plain_numbers() -> None:
    certificate = certify(trace_of(WrongGauge)).as_dict()
    assert all(isinstance(value, bool | int | float | str) for value in certificate.values())
