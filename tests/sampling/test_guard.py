"""Safeguarded samplers: what they enforce, for exact, bumpy and badly gauged energies."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from energydiff.denoisers import build_denoiser
from energydiff.energies import EmpiricalData, Energy, GaussianMixture
from energydiff.energies.base import Sigma, sigma_vector
from energydiff.errors import NoEnergyError, UserError
from energydiff.potentials import MLP
from energydiff.sampling import (
    Euler,
    GuardedEuler,
    GuardedHeun,
    Heun,
    Sampler,
    Trace,
    certify,
    karras_sigmas,
)
from energydiff.sampling.guard import Guard

every_guard = pytest.mark.parametrize("guard", [GuardedEuler, GuardedHeun])


def mixture(dim: int = 2) -> GaussianMixture:
    means = torch.randn(6, dim, dtype=torch.float64)
    return GaussianMixture(means, torch.linspace(0.05, 0.5, 6), torch.arange(1.0, 7))


class Bumpy(Energy):
    """A mixture whose E has ripples of length 0.3 and height 3 nats: λ_max(∇²V) in the hundreds."""

    def __init__(self, height: float = 3.0) -> None:
        super().__init__()
        self.inner, self.shape, self.height = mixture(), (2,), height

    def forward(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
        return self.inner(x, sigma) + self.height * (20 * x).sin().sum(1)


class Lifted(EmpiricalData):
    """E + lift · (10 − σ): the lower the noise, the higher V; 0 at the start."""

    exact, lift = False, 1.0

    def forward(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
        return super().forward(x, sigma, label) + self.lift * (10 - sigma_vector(sigma, x))

    def value_and_grad(
        self, x: Tensor, sigma: Sigma, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        energy, grad = super().value_and_grad(x, sigma, label)
        return energy + self.lift * (10 - sigma_vector(sigma, x)), grad


def trace_of(sampler: Sampler, energy: Energy, count: int) -> Trace:
    x = 10 * torch.randn(count, *energy.shape, generator=torch.Generator().manual_seed(1)).double()
    trace = sampler(energy, x_init=x).trace
    assert trace is not None
    return trace


def test_no_violation_in_ten_thousand_trajectories_where_heun_has_some() -> None:
    sigmas, energy = karras_sigmas(5, 0.02, 10.0), mixture()
    plain = certify(trace_of(Heun(sigmas), energy, 10_000))
    guarded = certify(trace_of(GuardedHeun(sigmas), energy, 10_000))
    assert plain.descent_rises > 50
    assert (guarded.descent_rises, guarded.rises, guarded.holds) == (0, 0, True)
    assert guarded.fallbacks >= plain.descent_rises


@pytest.mark.slow
@pytest.mark.parametrize("steps", [5, 8, 18, 40])
@pytest.mark.parametrize("dim", [1, 2, 3, 20])
def test_no_violation_in_any_dimension(dim: int, steps: int) -> None:
    trace = trace_of(GuardedHeun(karras_sigmas(steps, 0.02, 10.0), True), mixture(dim), 10_000)
    assert (certify(trace).descent_rises, certify(trace).rises) == (0, 0)


@every_guard
def test_the_share_asked_for_is_got(guard: type[Guard]) -> None:
    """Every step that moves falls by c of its own bound, in exact and in rough energies."""
    for energy in (mixture(), Bumpy()):
        trace = trace_of(guard(karras_sigmas(8, 0.02, 10.0), True, c=0.3), energy, 300)
        missing = trace.descent + 0.3 * trace.bound
        assert bool((missing <= certify(trace).tolerance).all())


def test_a_guard_that_has_nothing_to_do_changes_nothing() -> None:
    """Euler's steps of an exact energy have the whole bound, so that c = 1 refuses none."""
    sigmas, energy, x = karras_sigmas(12, 0.02, 10.0), mixture(), 10 * torch.randn(50, 2).double()
    plain, guarded = Euler(sigmas, True), GuardedEuler(sigmas, True, c=1.0)
    result = guarded(energy, x_init=x)
    assert_close(result.samples, plain(energy, x_init=x).samples)
    assert result.trace is not None and not bool(result.trace.fallbacks.any())


def test_one_sample_falls_back_without_the_others() -> None:
    """A refused sample gets Euler's step first; the rest of its batch keep Heun's."""
    sigmas, energy = [1.0, 0.1], mixture()
    x = energy.means[0] + torch.randn(3000, 2, generator=torch.Generator().manual_seed(1))
    result = GuardedHeun(sigmas)(energy, x_init=x)
    assert result.trace is not None and result.trace.fallbacks is not None
    refused = result.trace.fallbacks[0]
    assert 0 < int((refused > 0).sum()) < 300
    heun, euler = Heun(sigmas)(energy, x_init=x).samples, Euler(sigmas)(energy, x_init=x).samples
    assert_close(result.samples[refused == 0], heun[refused == 0])
    assert_close(result.samples[refused == 1], euler[refused == 1])


@every_guard
def test_a_rough_energy_is_descended_all_the_same(guard: type[Guard]) -> None:
    sigmas = karras_sigmas(8, 0.02, 10.0)
    plain = certify(trace_of(guard.__mro__[2](sigmas, True), Bumpy(), 200))
    trace = trace_of(guard(sigmas, True), Bumpy(), 200)
    assert plain.descent_rises > 100
    assert certify(trace).descent_rises == 0
    assert trace.fallbacks is not None and int(trace.fallbacks.max()) > 2  # backtracking


def test_where_no_step_descends_a_sample_stays() -> None:
    """Infinite everywhere but at the start: no move is accepted, and nothing is hidden."""

    class Trap(EmpiricalData):
        def forward(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
            return torch.where((x == 3).all(1), super().forward(x, sigma, label), torch.inf)

    x = torch.full((2, 2), 3.0).double()
    result = GuardedEuler(karras_sigmas(2, 0.1, 1.0))(Trap(torch.zeros(1, 2).double()), x_init=x)
    assert torch.equal(result.samples, x)
    assert result.trace is not None and not bool(result.trace.descent.any())
    assert not bool(result.trace.bound.any())


@every_guard
def test_what_is_claimed(guard: type[Guard]) -> None:
    sampler, learned = guard(karras_sigmas(3, 0.1, 1.0)), build_denoiser(MLP((2,), width=8), 0.5)
    assert sampler.claims(mixture()) == ("enforced", "enforced", "proved")
    assert sampler.claims(learned) == ("observed", "enforced", "observed")
    assert guard(sampler.sigmas, total=True).claims(learned)[0] == "enforced"


@every_guard
def test_a_landscape_that_can_be_made_up_for_is(guard: type[Guard]) -> None:
    """A gauge that lifts V by less than a denoising lowers it, at all but the last steps."""
    energy, sigmas = Lifted(torch.randn(4, 3).double()), karras_sigmas(20, 1.0, 10.0)
    energy.lift = 0.2
    left = certify(trace_of(guard(sigmas), energy, 100))
    kept = certify(trace_of(guard(sigmas, total=True), energy, 100))
    assert left.rises > 50 and not left.holds
    assert kept.rises < 0.75 * left.rises
    assert kept.descent_rises == 0 and kept.fallbacks > 0


@every_guard
def test_a_landscape_that_cannot_be_made_up_for_is_reported(guard: type[Guard]) -> None:
    """No x has a lower V at the lower noise (σ > 20/3): the rise is recorded, no sample moved."""
    energy, sigmas = Lifted(torch.randn(4, 3).double()), karras_sigmas(20, 1.0, 10.0)
    energy.lift = 1000.0
    trace = trace_of(guard(sigmas, total=True), energy, 20)
    certificate = certify(trace)
    assert not certificate.holds and certificate.rises == 80
    assert certificate.descent_rises == 0
    assert_close(trace.grad_norm, trace_of(guard(sigmas), energy, 20).grad_norm)


@every_guard
def test_it_costs_what_its_plain_sampler_and_its_record_cost(guard: type[Guard]) -> None:
    steps, energy = 9, EmpiricalData(torch.randn(5, 3).double())
    x = 0.01 * energy.data + 0.0  # nothing to refuse
    result = GuardedEuler(karras_sigmas(steps, 0.1, 5.0))(energy, x_init=x)
    assert (result.nfe, result.energy_evaluations) == (steps, steps + 1)
    result = guard(karras_sigmas(steps, 0.1, 5.0), True)(energy, x_init=x)
    assert result.nfe == guard.evaluations * steps + 1
    assert result.energy_evaluations <= 2 * steps + 2


def test_a_baseline_cannot_be_guarded() -> None:
    model = build_denoiser(MLP((3,), width=8), 0.5, "unconstrained")
    with pytest.raises(NoEnergyError):
        GuardedEuler(karras_sigmas(3, 0.1, 1.0))(model, x_init=torch.zeros(2, 3))


@pytest.mark.parametrize("c", [0.0, -1.0, 1.5])
def test_a_share_that_is_none_is_refused(c: float) -> None:
    with pytest.raises(UserError, match="c is"):
        GuardedEuler(karras_sigmas(3, 0.1, 1.0), c=c)
