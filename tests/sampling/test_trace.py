"""What a sampler records, and what the record costs."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from energydiff.denoisers import build_denoiser
from energydiff.energies import EmpiricalData, Energy
from energydiff.errors import UserError
from energydiff.potentials import MLP
from energydiff.sampling import Euler, Heun, Sampler, Trace, join_traces, karras_sigmas

STEPS = 6
SIGMAS = karras_sigmas(STEPS, 0.1, 5.0)
every_sampler = pytest.mark.parametrize("sampler", [Euler, Heun])
every_end = pytest.mark.parametrize("final", [False, True], ids=["plain", "denoised"])


def data() -> EmpiricalData:
    return EmpiricalData(torch.randn(7, 3, dtype=torch.float64))


def start(batch: int = 4) -> Tensor:
    return 5 * torch.randn(batch, 3, dtype=torch.float64)


def trace_of(sampler: type[Sampler], final: bool, energy: Energy, x: Tensor) -> Trace:
    trace = sampler(SIGMAS, final_denoise=final)(energy, x_init=x).trace
    assert trace is not None
    return trace


@every_sampler
@every_end
def test_shapes(sampler: type[Sampler], final: bool) -> None:
    """Points have one row more than moves."""
    trace, moves = trace_of(sampler, final, data(), start()), STEPS + final
    shapes = {name: tuple(value.shape) for name, value in trace.arrays().items()}
    points = dict.fromkeys(("free_energy", "energy", "grad_norm", "x_norm"), (moves + 1, 4))
    steps = dict.fromkeys(("descent", "landscape", "bound"), (moves, 4))
    assert shapes == {"sigma": (moves + 1,), **points, **steps}


@every_sampler
@every_end
def test_the_parts_telescope(sampler: type[Sampler], final: bool) -> None:
    """descent + landscape is the change of V."""
    trace = trace_of(sampler, final, data(), start())
    total = trace.descent + trace.landscape
    assert_close(total, trace.free_energy.diff(dim=0), rtol=1e-10, atol=1e-10)


@every_sampler
@every_end
def test_every_entry_is_what_it_says(sampler: type[Sampler], final: bool) -> None:
    """The record against the energy itself, at the points the sampler shows."""
    energy, points = data(), []
    run = sampler(SIGMAS, final_denoise=final)
    result = run(energy, x_init=start(), on_step=lambda _, point: points.append(point))
    trace, xs = result.trace, [point.x for point in points]
    assert trace is not None
    levels = trace.sigma.tolist()
    xs += [result.samples] * (len(levels) - len(xs))
    assert levels == [*SIGMAS.tolist(), *SIGMAS.tolist()[-1:] * final]
    for k, (x, sigma) in enumerate(zip(xs, levels, strict=True)):
        free, residual = energy.free_energy(x, sigma), x - energy.denoise(x, sigma)
        assert_close(trace.energy[k], energy(x, sigma))
        assert_close(trace.free_energy[k], free)
        assert_close(trace.grad_norm[k], residual.norm(dim=1))
        if k < len(trace.descent):
            eta = 1.0 if final and k == STEPS else 1 - levels[k + 1] / sigma
            moved = energy.free_energy(xs[k + 1], sigma)
            assert_close(trace.descent[k], moved - free)
            assert_close(trace.bound[k], eta * (1 - eta / 2) * residual.square().sum(1))


@every_sampler
def test_a_final_denoising_has_no_landscape_part(sampler: type[Sampler]) -> None:
    trace = trace_of(sampler, True, data(), start())
    assert not trace.landscape[-1].any() and trace.landscape[:-1].all()


@every_sampler
def test_a_final_denoising_leaves_the_noise(sampler: type[Sampler]) -> None:
    """V is never evaluated at σ = 0."""
    trace = trace_of(sampler, True, data(), start())
    assert trace.sigma[-1].item() == trace.sigma[-2].item() == 0.1


@pytest.mark.parametrize(("sampler", "per_step"), [(Euler, 1), (Heun, 2)])
@every_end
@pytest.mark.parametrize("record", [False, True], ids=["silent", "recorded"])
def test_the_counts_are_true(
    sampler: type[Sampler], per_step: int, final: bool, record: bool, counting
) -> None:
    energy = counting(data())
    result = sampler(SIGMAS, final_denoise=final)(energy, x_init=start(), trace=record)
    assert result.nfe == per_step * STEPS + final
    assert result.nfe + result.energy_evaluations == energy.gradients + energy.energies


@every_sampler
@every_end
def test_recording_switched_off_costs_nothing(
    sampler: type[Sampler], final: bool, counting
) -> None:
    energy = counting(data())
    result = sampler(SIGMAS, final_denoise=final)(energy, x_init=start(), trace=False)
    assert result.trace is None
    assert (result.energy_evaluations, energy.energies) == (0, 0)


@every_sampler
@every_end
def test_recording_costs_one_energy_per_point(sampler: type[Sampler], final: bool) -> None:
    result = sampler(SIGMAS, final_denoise=final)(data(), x_init=start())
    assert result.energy_evaluations <= STEPS + final + 1


@every_sampler
@every_end
def test_recording_does_not_change_the_samples(sampler: type[Sampler], final: bool) -> None:
    energy, x, run = data(), start(), sampler(SIGMAS, final_denoise=final)
    recorded, silent = (run(energy, x_init=x, trace=record).samples for record in (True, False))
    assert_close(recorded, silent, rtol=0, atol=1e-12)


@every_end
def test_the_observer_sees_every_point(final: bool) -> None:
    seen: list[tuple[int, float]] = []
    Euler(SIGMAS, final_denoise=final)(
        data(), x_init=start(), on_step=lambda done, point: seen.append((done, point.sigma))
    )
    assert seen == list(enumerate(SIGMAS.tolist()))[: STEPS + final]


def test_a_baseline_has_no_trace() -> None:
    model = build_denoiser(MLP((3,), width=8), 0.5, "unconstrained").double()
    result = Euler(SIGMAS)(model, x_init=start())
    assert result.trace is None and result.energy_evaluations == 0


def test_a_learned_energy_is_observed_not_proved() -> None:
    model = build_denoiser(MLP((3,), width=8), 0.5).double()
    assert trace_of(Euler, False, model, start()).claim == "observed"


def test_samples_and_trace_hold_no_graph() -> None:
    model = build_denoiser(MLP((3,), width=8), 0.5).double().train()
    result = Euler(SIGMAS)(model, x_init=start())
    assert result.trace is not None
    tensors = [result.samples, *result.trace.arrays().values()]
    assert not any(tensor.requires_grad for tensor in tensors)


def test_traces_of_batches_join() -> None:
    energy, x = data(), start(6)
    parts = [trace_of(Euler, True, energy, part) for part in x.split(4)]
    whole = trace_of(Euler, True, energy, x)
    for name, value in join_traces(parts).arrays().items():
        assert_close(value, whole.arrays()[name])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either x_init or seeds"),
        ({"x_init": torch.zeros(2, 3), "seeds": [0, 1]}, "either x_init or seeds"),
        ({"x_init": torch.zeros(2, 4)}, "x_init has shape"),
    ],
)
def test_a_start_that_is_none_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Euler(SIGMAS)(data(), **arguments)
