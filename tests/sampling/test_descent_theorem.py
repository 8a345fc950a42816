"""§3, claim 4: deterministic sampling of an exact energy descends V at every step of any size."""

import pytest
import torch
from torch import Tensor

from energydiff.energies import EmpiricalData, Energy, GaussianMixture
from energydiff.sampling import Euler, Heun, Trace, certify, karras_sigmas

HIGH = 10.0
every_dimension = pytest.mark.parametrize("dim", [2, 20, 100])
every_count = pytest.mark.parametrize("steps", [5, 20, 80])
every_kind = pytest.mark.parametrize("kind", ["mixture", "points"])


def exact_energy(kind: str, dim: int) -> Energy:
    means = torch.randn(6, dim, dtype=torch.float64)
    if kind == "points":
        return EmpiricalData(means)
    return GaussianMixture(means, torch.linspace(0.05, 0.5, 6), torch.arange(1.0, 7))


def trace_of(kind: str, dim: int, steps: int, dtype: torch.dtype = torch.float64) -> Trace:
    energy = exact_energy(kind, dim).to(dtype)
    x = HIGH * torch.randn(100, dim, dtype=dtype)
    sampler = Euler(karras_sigmas(steps, 0.02, HIGH), final_denoise=True)
    trace = sampler(energy, x_init=x).trace
    assert trace is not None
    return trace


@every_kind
@every_dimension
@every_count
def test_no_step_rises(kind: str, dim: int, steps: int) -> None:
    certificate = certify(trace_of(kind, dim, steps))
    assert certificate.claim == "proved" and certificate.holds and certificate.rises == 0


@every_kind
@every_dimension
@every_count
def test_neither_part_of_a_step_rises(kind: str, dim: int, steps: int) -> None:
    certificate = certify(trace_of(kind, dim, steps))
    assert (certificate.descent_rises, certificate.landscape_rises) == (0, 0)


@every_dimension
@every_count
def test_every_move_descends_by_its_bound(dim: int, steps: int) -> None:
    """descent ≤ −η(1 − η/2)‖∇V‖²."""
    assert certify(trace_of("mixture", dim, steps)).bound_misses == 0


@every_dimension
@every_count
def test_every_move_on_points_descends_by_its_bound(dim: int, steps: int) -> None:
    """Next to a point the bound is an equality: only the rounding of ‖x − y‖² is left over."""
    trace = trace_of("points", dim, steps)
    assert (trace.descent + trace.bound).max().item() < 1e-12
    assert certify(trace).bound_misses == 0


@every_dimension
def test_float32_rounding_is_allowed_for(dim: int) -> None:
    certificate = certify(trace_of("mixture", dim, 80, torch.float32))
    assert certificate.holds and certificate.bound_misses == 0


@every_kind
def test_v_falls_by_more_than_a_rounding(kind: str) -> None:
    """Else the tolerance could hide everything."""
    trace = trace_of(kind, 20, 20)
    fallen = (trace.free_energy[0] - trace.free_energy[-1]).min().item()
    assert fallen > 1e6 * certify(trace).tolerance > 0


@pytest.mark.parametrize(("start", "rises"), [(1e-3, True), (2.0, False)])
def test_the_raw_energy_is_no_lyapunov_function(start: float, rises: bool) -> None:
    """Where trajectories branch, E rises in exact steps while V falls."""
    energy = EmpiricalData(torch.tensor([[1.0], [-1.0]], dtype=torch.float64))
    x: Tensor = torch.tensor([[start]], dtype=torch.float64)
    trace = Euler(karras_sigmas(20, 0.5, 0.95))(energy, x_init=x).trace
    assert trace is not None and certify(trace).holds
    assert bool((trace.energy.diff(dim=0) > 1e-3).any()) == rises


def test_no_theorem_is_claimed_for_heun() -> None:
    energy = exact_energy("mixture", 2)
    x = HIGH * torch.randn(20, 2, dtype=torch.float64)
    trace = Heun(karras_sigmas(10, 0.02, HIGH))(energy, x_init=x).trace
    assert certify(trace).claim == "observed"


def test_heuns_descent_part_alone_can_rise() -> None:
    """Large steps, d = 2: why the claim is not made."""
    energy = exact_energy("mixture", 2)
    x = HIGH * torch.randn(300, 2, dtype=torch.float64)
    certificate = certify(Heun(karras_sigmas(5, 0.02, HIGH))(energy, x_init=x).trace)
    assert certificate.descent_rises > 0
