"""Safeguarded samplers: what they enforce, for exact, bumpy and badly gauged energies."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import energydiff
from energydiff.denoisers import build_denoiser
from energydiff.energies import EmpiricalData, Energy, GaussianMixture
from energydiff.energies.base import Sigma, sigma_vector
from energydiff.errors import NoEnergyError, UserError
from energydiff.potentials import MLP
from energydiff.sampling import (
    DPMSolver2M,
    Euler,
    GradientDescent,
    Guarded,
    Heun,
    Langevin,
    Sampler,
    Trace,
    certify,
    karras_sigmas,
)

PRETRAINED = Path(__file__).parents[2] / "pretrained/digits_energy_unet"
every_sampler = pytest.mark.parametrize("kind", [Euler, Heun, DPMSolver2M])


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

    def gradient(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        energy, grad = super().gradient(x, sigma, label)
        return energy + self.lift * (10 - sigma_vector(sigma, x)), grad


def trace_of(sampler: Sampler, energy: Energy, count: int) -> Trace:
    x = 10 * torch.randn(count, *energy.shape, generator=torch.Generator().manual_seed(1)).double()
    trace = sampler(energy, x_init=x).trace
    assert trace is not None
    return trace


def test_no_violation_in_ten_thousand_trajectories_where_heun_has_some() -> None:
    sigmas, energy = karras_sigmas(5, 0.02, 10.0), mixture()
    plain = certify(trace_of(Heun(sigmas), energy, 10_000))
    guarded = certify(trace_of(Guarded(Heun(sigmas)), energy, 10_000))
    assert plain.descent_rises > 50
    assert (guarded.descent_rises, guarded.rises, guarded.holds) == (0, 0, True)
    assert guarded.fallbacks >= plain.descent_rises


@pytest.mark.slow
@pytest.mark.parametrize("steps", [5, 8, 18, 40])
@pytest.mark.parametrize("dim", [1, 2, 3, 20])
def test_no_violation_in_any_dimension(dim: int, steps: int) -> None:
    trace = trace_of(Guarded(Heun(karras_sigmas(steps, 0.02, 10.0), True)), mixture(dim), 10_000)
    assert (certify(trace).descent_rises, certify(trace).rises) == (0, 0)


def test_no_step_of_a_multistep_sampler_rises_that_is_guarded() -> None:
    """DPM-Solver++ extrapolates from where it was; what a guard changed is where it is."""
    sigmas, energy = karras_sigmas(6, 0.02, 10.0), mixture()
    plain = certify(trace_of(DPMSolver2M(sigmas), energy, 2000))
    guarded = certify(trace_of(Guarded(DPMSolver2M(sigmas)), energy, 2000))
    assert plain.descent_rises > 500
    assert (guarded.descent_rises, guarded.rises, guarded.holds) == (0, 0, True)
    assert guarded.claim == "enforced" and guarded.fallbacks > 500


# Of the guards of the first release, which were classes of their own: refusals, Σx², Σ descent and
# Σ bound.
EARLIER = {
    Euler: (0, 2271.222334108329, -196305.18800697962, 194946.07457468694),
    Heun: (26, 4258.036553365927, -195022.53337420642, 196841.07105910796),
}


@pytest.mark.parametrize("kind", EARLIER)
def test_guards_do_what_they_always_did(kind: type[Sampler]) -> None:
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    energy = GaussianMixture(means, torch.linspace(0.05, 0.5, 6), torch.arange(1.0, 7))
    x = 10 * torch.randn(2000, 2, generator=generator, dtype=torch.float64)
    result = Guarded(kind(karras_sigmas(5, 0.02, 10.0), True))(energy, x_init=x)
    trace = result.trace
    assert trace is not None and trace.fallbacks is not None
    found = trace.fallbacks.sum(), result.samples.square().sum(), trace.descent.sum()
    assert [float(value) for value in (*found, trace.bound.sum())] == pytest.approx(EARLIER[kind])


# Of a trained energy in 4 steps with c = 1: refusals, evaluations, energies, and Σx².
TRAINED = {Euler: (1, 5, 7, 324.395142), Heun: (28, 9, 11, 337.787537)}


@pytest.mark.parametrize("kind", TRAINED)
def test_guards_of_a_trained_energy_do_too(kind: type[Sampler]) -> None:
    model = energydiff.load(PRETRAINED)
    x = 10 * torch.randn(8, *model.shape, generator=torch.Generator().manual_seed(0))
    result = Guarded(kind(karras_sigmas(4, 0.02, 10.0), True), c=1.0)(model, x)
    assert result.trace is not None and result.trace.fallbacks is not None
    counts = int(result.trace.fallbacks.sum()), result.nfe, result.energy_evaluations
    assert counts == TRAINED[kind][:3]
    assert float(result.samples.square().sum()) == pytest.approx(TRAINED[kind][3], rel=1e-4)


@every_sampler
def test_the_share_asked_for_is_got(kind: type[Sampler]) -> None:
    """Every step that moves falls by c of its own bound, in exact and in rough energies."""
    for energy in (mixture(), Bumpy()):
        trace = trace_of(Guarded(kind(karras_sigmas(8, 0.02, 10.0), True), c=0.3), energy, 300)
        missing = trace.descent + 0.3 * trace.bound
        assert bool((missing <= certify(trace).tolerance).all())


def test_a_guard_that_has_nothing_to_do_changes_nothing() -> None:
    """Euler's steps of an exact energy have the whole bound, so that c = 1 refuses none."""
    sigmas, energy, x = karras_sigmas(12, 0.02, 10.0), mixture(), 10 * torch.randn(50, 2).double()
    plain, guarded = Euler(sigmas, True), Guarded(Euler(sigmas, True), c=1.0)
    result = guarded(energy, x_init=x)
    assert_close(result.samples, plain(energy, x_init=x).samples)
    assert result.trace is not None and not bool(result.trace.fallbacks.any())


def test_one_sample_falls_back_without_the_others() -> None:
    """A refused sample gets Euler's step first; the rest of its batch keep Heun's."""
    sigmas, energy = [1.0, 0.1], mixture()
    x = energy.means[0] + torch.randn(3000, 2, generator=torch.Generator().manual_seed(1))
    result = Guarded(Heun(sigmas))(energy, x_init=x)
    assert result.trace is not None and result.trace.fallbacks is not None
    refused = result.trace.fallbacks[0]
    assert 0 < int((refused > 0).sum()) < 300
    heun, euler = Heun(sigmas)(energy, x_init=x).samples, Euler(sigmas)(energy, x_init=x).samples
    assert_close(result.samples[refused == 0], heun[refused == 0])
    assert_close(result.samples[refused == 1], euler[refused == 1])


@every_sampler
def test_a_rough_energy_is_descended_all_the_same(kind: type[Sampler]) -> None:
    sigmas = karras_sigmas(8, 0.02, 10.0)
    plain = certify(trace_of(kind(sigmas, True), Bumpy(), 200))
    trace = trace_of(Guarded(kind(sigmas, True)), Bumpy(), 200)
    assert plain.descent_rises > 100
    assert certify(trace).descent_rises == 0
    assert trace.fallbacks is not None and int(trace.fallbacks.max()) > 2  # backtracking


def test_where_no_step_descends_a_sample_stays() -> None:
    """Infinite everywhere but at the start: no move is accepted, and nothing is hidden."""

    class Trap(EmpiricalData):
        def forward(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
            return torch.where((x == 3).all(1), super().forward(x, sigma, label), torch.inf)

    x = torch.full((2, 2), 3.0).double()
    result = Guarded(Euler(karras_sigmas(2, 0.1, 1.0)))(Trap(torch.zeros(1, 2).double()), x_init=x)
    assert torch.equal(result.samples, x)
    assert result.trace is not None and not bool(result.trace.descent.any())
    assert not bool(result.trace.bound.any())


@every_sampler
def test_what_is_claimed(kind: type[Sampler]) -> None:
    sampler, learned = (
        Guarded(kind(karras_sigmas(3, 0.1, 1.0))),
        build_denoiser(MLP((2,), width=8), 0.5),
    )
    assert sampler.claims(mixture()) == ("enforced", "enforced", "proved")
    assert sampler.claims(learned) == ("observed", "enforced", "observed")
    assert Guarded(kind(sampler.sigmas), total=True).claims(learned)[0] == "enforced"


@every_sampler
def test_a_landscape_that_can_be_made_up_for_is(kind: type[Sampler]) -> None:
    """A gauge that lifts V by less than a denoising lowers it, at all but the last steps."""
    energy, sigmas = Lifted(torch.randn(4, 3).double()), karras_sigmas(20, 1.0, 10.0)
    energy.lift = 0.2
    left = certify(trace_of(Guarded(kind(sigmas)), energy, 100))
    kept = certify(trace_of(Guarded(kind(sigmas), total=True), energy, 100))
    assert left.rises > 50 and not left.holds
    assert kept.rises < 0.75 * left.rises
    assert kept.descent_rises == 0 and kept.fallbacks > 0


@every_sampler
def test_a_landscape_that_cannot_be_made_up_for_is_reported(kind: type[Sampler]) -> None:
    """No x has a lower V at the lower noise (σ > 20/3): the rise is recorded, no sample moved."""
    energy, sigmas = Lifted(torch.randn(4, 3).double()), karras_sigmas(20, 1.0, 10.0)
    energy.lift = 1000.0
    trace = trace_of(Guarded(kind(sigmas), total=True), energy, 20)
    certificate = certify(trace)
    assert not certificate.holds and certificate.rises == 80
    assert certificate.descent_rises == 0
    assert_close(trace.grad_norm, trace_of(Guarded(kind(sigmas)), energy, 20).grad_norm)


@every_sampler
def test_it_costs_what_its_plain_sampler_and_its_record_cost(kind: type[Sampler]) -> None:
    steps, energy = 9, EmpiricalData(torch.randn(5, 3).double())
    x = 0.01 * energy.data + 0.0  # nothing to refuse
    result = Guarded(Euler(karras_sigmas(steps, 0.1, 5.0)))(energy, x_init=x)
    assert (result.nfe, result.energy_evaluations) == (steps, steps + 1)
    result = Guarded(kind(karras_sigmas(steps, 0.1, 5.0), True))(energy, x_init=x)
    assert result.nfe == kind.evaluations * steps + 1
    assert result.energy_evaluations <= 2 * steps + 2


def test_a_baseline_cannot_be_guarded() -> None:
    model = build_denoiser(MLP((3,), width=8), 0.5, "unconstrained")
    with pytest.raises(NoEnergyError):
        Guarded(Euler(karras_sigmas(3, 0.1, 1.0)))(model, x_init=torch.zeros(2, 3))


@pytest.mark.parametrize("c", [0.0, -1.0, 1.5])
def test_a_share_that_is_none_is_refused(c: float) -> None:
    with pytest.raises(UserError, match="c is"):
        Guarded(Euler(karras_sigmas(3, 0.1, 1.0)), c=c)


@pytest.mark.parametrize("total", [False, True])
def test_a_chain_cannot_be_guarded(total: bool) -> None:
    with pytest.raises(UserError, match="langevin cannot be guarded: its noise raises V"):
        Guarded(Langevin(1.0), total=total)


def test_a_guard_around_a_descent_is_a_line_search() -> None:
    """It shortens the steps that are too long for a rough energy, at one noise."""
    descent = GradientDescent(20, 1.0, sigma=0.5)
    plain = certify(trace_of(descent, Bumpy(), 50))
    guarded = certify(trace_of(Guarded(descent), Bumpy(), 50))
    assert plain.rises > 100 and guarded.rises == 0 and guarded.claim == "enforced"


def test_a_rise_is_made_up_for_by_several_moves_where_one_is_not_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of broad data a full denoising goes a small part of the way: V at σ' has further to fall."""

    class LiftedGaussian(GaussianMixture):
        exact = False

        def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
            return super().forward(x, sigma, label) + (1 - sigma) / sigma.square()

    energy, x = LiftedGaussian(torch.zeros(1, 3).double(), 1.0), 0.6 * torch.randn(200, 3).double()
    sampler = Guarded(Euler([1.0, 0.9]), total=True)

    def rises(moves: int) -> int:
        monkeypatch.setattr("energydiff.sampling.guard.REPAIRS", moves)
        trace = sampler(energy, x_init=x).trace
        certificate = certify(trace)
        assert certificate.descent_rises == 0 and certificate.claim == "enforced"
        return certificate.rises

    counts = [rises(moves) for moves in (10, 1, 0)]
    assert counts[0] < counts[1] < counts[2], counts
