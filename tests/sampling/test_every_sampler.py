"""What every sampler declares and promises, checked for all of them at once."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from energydiff.denoisers import build_denoiser
from energydiff.energies import EmpiricalData, Energy
from energydiff.energies.base import Sigma
from energydiff.potentials import MLP
from energydiff.sampling import (
    HMC,
    MALA,
    Ancestral,
    Armijo,
    Churn,
    DPMSolver2M,
    Euler,
    GradientDescent,
    Guarded,
    Heun,
    Langevin,
    Nesterov,
    Sampler,
    SequentialMonteCarlo,
    certify,
    join_traces,
    karras_sigmas,
)

SIGMAS = karras_sigmas(6, 0.1, 5.0)
DOWN_NOISE = (Euler, Heun, DPMSolver2M)
SAMPLERS: dict[str, Sampler] = {
    sampler.name: sampler
    for sampler in (
        *(kind(SIGMAS, True) for kind in (*DOWN_NOISE, Ancestral, Churn)),
        *(Guarded(kind(SIGMAS, True)) for kind in DOWN_NOISE),
        *(kind(SIGMAS, True, updates=2) for kind in (Langevin, MALA, HMC)),
        SequentialMonteCarlo(SIGMAS, True, particles=1),  # populations have tests of their own
        *(kind(6, 0.5, 0.0, 0.5) for kind in (GradientDescent, Nesterov, Armijo)),
        Guarded(GradientDescent(6, 0.5, 0.0, 0.5)),
    )
}
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
GUARDS = (*(name for name in SAMPLERS if name.startswith("guarded_")), "armijo")
PROPOSERS = (*GUARDS, "mala", "hmc", "smc")
STOCHASTIC = ("ancestral", "churn", "langevin", "mala", "hmc", "smc")


def data() -> EmpiricalData:
    return EmpiricalData(torch.randn(7, 3, generator=torch.Generator().manual_seed(0)).double())


@every_sampler
@pytest.mark.parametrize("record", [False, True], ids=["silent", "recorded"])
def test_the_counts_are_true(sampler: Sampler, record: bool, counting) -> None:
    energy = counting(data())
    result = sampler(energy, seeds=range(4), trace=record)
    assert result.nfe + result.energy_evaluations == energy.gradients + energy.energies


@every_sampler
def test_a_step_costs_what_is_declared(sampler: Sampler, counting) -> None:
    """Evaluations per step, but for fallbacks and at most one more for the last point."""
    energy, steps = counting(data()), len(sampler.sigmas) - 1
    result = sampler(energy, seeds=range(4), trace=False)
    least = sampler.evaluations * steps + sampler.final_denoise
    # Metropolis evaluates a new noise level once before its first proposal there.
    levels = len(sampler.sigmas.unique()) if sampler.name in ("mala", "hmc") else 1
    assert least <= result.nfe <= least + levels
    if sampler.name not in GUARDS:
        assert result.energy_evaluations == 0


@every_sampler
def test_a_record_costs_one_energy_a_step(sampler: Sampler) -> None:
    """Two for churn, which has no use of its own for the points it passes."""
    steps = len(sampler.sigmas) - 1 + sampler.final_denoise
    silent, recorded = (sampler(data(), seeds=range(4), trace=record) for record in (False, True))
    extra = recorded.nfe + recorded.energy_evaluations - silent.nfe - silent.energy_evaluations
    assert extra <= steps * (2 if sampler.name == "churn" else 1) + 1
    assert recorded.nfe == silent.nfe
    assert_close(recorded.samples, silent.samples, rtol=0, atol=1e-12)


@every_sampler
def test_the_parts_telescope(sampler: Sampler) -> None:
    trace = sampler(data(), seeds=range(4)).trace
    assert trace is not None
    assert_close(trace.descent + trace.landscape, trace.free_energy.diff(dim=0))
    assert bool((trace.bound >= 0).all())


@every_sampler
def test_every_entry_is_what_it_says(sampler: Sampler) -> None:
    """The record against the energy itself, at the points the sampler shows."""
    energy, points = data(), []
    result = sampler(energy, seeds=range(4), on_step=lambda _, point: points.append(point.x))
    trace, xs = result.trace, [*points, result.samples]
    assert trace is not None
    levels = trace.sigma.tolist()
    for k, (x, sigma) in enumerate(zip(xs, levels, strict=True)):
        assert_close(trace.free_energy[k], energy.free_energy(x, sigma))
        assert_close(trace.grad_norm[k], (x - energy.denoise(x, sigma)).norm(dim=1))
        assert_close(trace.x_norm[k], x.norm(dim=1))
        if k:
            before, moved = levels[k - 1], energy.free_energy(x, levels[k - 1])
            assert_close(trace.descent[k - 1], moved - energy.free_energy(xs[k - 1], before))


@every_sampler
def test_batches_do_not_matter(sampler: Sampler) -> None:
    """A sample and its record depend on its seed alone."""
    seeds = [5, 0, 2**40, 3, 17]
    whole = sampler(data(), seeds=seeds)
    parts = [sampler(data(), seeds=part) for part in (seeds[:2], seeds[2:])]
    assert_close(torch.cat([part.samples for part in parts]), whole.samples)
    joined = join_traces([part.trace for part in parts])
    for name, value in joined.arrays().items():
        assert_close(value, whole.trace.arrays()[name])
    assert joined.claims == whole.trace.claims


@every_sampler
def test_claims(sampler: Sampler) -> None:
    """Stochastic samplers have none to pass; guards enforce; theory proves the landscape part."""
    certificate = certify(sampler(data(), seeds=range(4)).trace)
    name = sampler.name
    expected = {"euler": "proved", "gradient_descent": "proved"}
    expected |= dict.fromkeys(GUARDS, "enforced") | dict.fromkeys(STOCHASTIC, "stochastic")
    assert certificate.descent_claim == expected.get(name, "observed")
    assert certificate.claim == certificate.descent_claim
    assert certificate.landscape_claim == "proved"
    assert (certificate.holds is None) == (name in STOCHASTIC)


@every_sampler
def test_nothing_is_proved_of_a_network(sampler: Sampler) -> None:
    model = build_denoiser(MLP((3,), width=8), 0.5).double().eval()
    trace = sampler(model, seeds=range(4)).trace
    assert trace is not None and "proved" not in trace.claims
    assert trace.landscape_claim == "observed"
    assert not any(array.requires_grad for array in trace.arrays().values())


@every_sampler
def test_only_those_who_refuse_count_refusals(sampler: Sampler) -> None:
    trace = sampler(data(), seeds=range(4)).trace
    assert trace is not None
    assert (trace.fallbacks is not None) == (sampler.name in PROPOSERS)
    if trace.fallbacks is not None:
        assert trace.fallbacks.shape == trace.descent.shape
        assert certify(trace).fallbacks == int((trace.fallbacks > 0).sum())


@every_sampler
def test_float32_and_images(sampler: Sampler) -> None:
    energy = EmpiricalData(torch.randn(5, 1, 2, 2))
    result = sampler(energy, seeds=range(3))
    assert result.samples.shape == (3, 1, 2, 2) and result.samples.dtype == torch.float32
    assert bool(result.samples.isfinite().all())


@every_sampler
def test_labels_reach_the_model(sampler: Sampler) -> None:
    """Two classes with data of their own, in one batch."""

    class Labelled(Energy):
        shape, num_classes = (1,), 2

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("means", torch.tensor([[-3.0], [3.0]]))

        def forward(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
            assert label is not None and len(label) == len(x)
            squared = (x - self.means[label]).square().sum(1)
            return 0.5 * squared / (torch.as_tensor(sigma) ** 2 + 0.01)

    label = torch.tensor([0, 1, 0, 1])
    settings = {} if sampler.name not in ("mala", "langevin") else {"updates": 60}
    if settings:
        sampler = type(sampler)(SIGMAS, True, **settings)
    samples = sampler(Labelled(), seeds=range(4), label=label).samples
    assert torch.equal(samples[:, 0] > 0, label == 1)
