"""Descent on noise-blind energies: plain, accelerated and with Armijo's condition."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from energydiff.denoisers import build_denoiser
from energydiff.energies import Energy, GaussianMixture
from energydiff.energies.base import Sigma
from energydiff.errors import NoEnergyError, UserError
from energydiff.potentials import MLP
from energydiff.sampling import Armijo, GradientDescent, Nesterov, certify, resting_norm

every_descent = pytest.mark.parametrize("descent", [GradientDescent, Nesterov, Armijo])


class Quadratic(Energy):
    """E(x) = ½ Σ λ_i x_i², whatever the noise."""

    def __init__(self, *eigenvalues: float) -> None:
        super().__init__()
        self.eigenvalues, self.shape = torch.tensor(eigenvalues).double(), (len(eigenvalues),)

    def forward(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
        return 0.5 * (self.eigenvalues * x.square()).sum(1)


class Quartic(Energy):
    """E(x) = ¼ Σ (x_i² − 1)² + 0.2 Σ x_i: coercive, no step size suits it everywhere."""

    shape = (2,)

    def forward(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
        return (0.25 * (x.square() - 1).square() + 0.2 * x).sum(1)


def start(energy: Energy, count: int = 40, size: float = 3.0) -> Tensor:
    return size * torch.randn(count, *energy.shape).double()


@every_descent
def test_the_minimum_of_a_quadratic_is_found(descent: type[GradientDescent]) -> None:
    energy = Quadratic(1.0, 0.2)
    result = descent(400, 0.5, 1e-8)(energy, x_init=start(energy))
    assert_close(result.samples, torch.zeros_like(result.samples), rtol=0, atol=1e-6)


def test_plain_steps_are_the_closed_form() -> None:
    """x_k = (1 − ηλ)^k x_0; at σ = 1 the steps are on E itself."""
    energy = Quadratic(1.0, 0.2, 0.05)
    x = start(energy)
    result = GradientDescent(7, 0.5, tolerance=0)(energy, x_init=x)
    assert_close(result.samples, (1 - 0.5 * energy.eigenvalues) ** 7 * x)


def test_momentum_pays_on_a_narrow_valley() -> None:
    energy = Quadratic(1.0, 5e-3)
    x = start(energy)
    steps = {}
    for descent in (GradientDescent, Nesterov):
        trace = descent(1500, 1.0, 1e-4)(energy, x_init=x).trace
        assert trace is not None and bool((trace.grad_norm[-1] <= 1e-4).all())
        steps[descent] = int((trace.bound > 0).any(1).sum())
    assert steps[Nesterov] < 0.2 * steps[GradientDescent]


def test_restart_keeps_momentum_from_swinging() -> None:
    """Nesterov without restart overshoots a quadratic for ever longer; V rises are rare with it."""
    energy = Quadratic(1.0, 0.01)
    certificate = certify(Nesterov(500, 0.5, 1e-10)(energy, x_init=start(energy)).trace)
    assert certificate.claim == "observed" and certificate.rises < 0.05 * certificate.steps


@every_descent
def test_every_sample_stops_by_itself(descent: type[GradientDescent]) -> None:
    """At the first point where its own gradient is short enough; nothing more is spent on it."""
    energy = Quadratic(1.0, 0.3)
    x = torch.tensor([[1e-4, 0.0], [0.5, 0.0], [5.0, 5.0]]).double()
    run = descent(300, 0.3, 1e-3)
    result = run(energy, x_init=x)
    trace = result.trace
    assert trace is not None and torch.equal(result.samples[0], x[0])
    first = (trace.grad_norm <= 1e-3).double().argmax(0)
    moved = (trace.bound > 0).sum(0)
    assert torch.equal(moved, first) and moved[0] == 0 < moved[1] < moved[2]
    for i in range(3):  # alone it is what it is in company
        assert_close(run(energy, x_init=x[i : i + 1]).samples[0], result.samples[i])
    assert result.nfe == int(moved[2]) + 1


@every_descent
def test_a_sample_at_rest_is_a_copy_to_the_end(descent: type[GradientDescent]) -> None:
    """So that traces of different batches join."""
    energy = Quadratic(1.0)
    trace = descent(50, 0.5, 1e-2)(energy, x_init=start(energy)).trace
    assert trace is not None and len(trace.descent) == 50
    assert not bool(trace.descent[-1].any() or trace.landscape.any())


def test_armijo_descends_where_a_fixed_step_explodes() -> None:
    energy, x = Quartic(), start(Quartic())
    fixed = certify(GradientDescent(50, 1.0)(energy, x_init=x).trace)
    assert fixed.holds is False
    result = Armijo(200, 1.0, 1e-6)(energy, x_init=x)
    certificate = certify(result.trace)
    assert certificate.holds and certificate.claim == "enforced" and certificate.fallbacks > 0
    assert result.trace is not None and bool((result.trace.grad_norm[-1] <= 1e-6).all())
    assert result.energy_evaluations < 2.5 * result.nfe


def test_armijos_share_is_got_even_for_steps_beyond_one() -> None:
    """V(x') ≤ V(x) − ½cη‖∇V‖² where η > 1 is taken."""
    energy = Quadratic(0.1, 0.02)
    trace = Armijo(10, 8.0, 0.0, c=0.5)(energy, x_init=start(energy)).trace
    assert trace is not None
    fallen = -trace.descent / trace.grad_norm[:-1].square()
    assert bool((fallen >= 0.5 * 0.5 * 8.0 - 1e-9).all()) and not bool(trace.fallbacks.any())


def test_what_is_claimed() -> None:
    exact = GaussianMixture(torch.zeros(1, 2), 1.0)
    assert GradientDescent(step_size=2.0).claims(exact).total == "proved"
    assert GradientDescent(step_size=2.1).claims(exact).total == "observed"
    assert GradientDescent().claims(Quartic()).total == "observed"
    assert Nesterov().claims(exact).total == "observed"
    assert Armijo().claims(Quartic())[:2] == ("enforced", "enforced")


def test_an_exact_energy_falls_at_any_step_up_to_two() -> None:
    means = torch.randn(5, 3).double()
    energy = GaussianMixture(means, 0.2)
    trace = GradientDescent(60, 1.9, 1e-6, sigma=0.5)(energy, x_init=start(energy)).trace
    certificate = certify(trace)
    assert certificate.holds and certificate.claim == "proved" and certificate.bound_misses == 0


def test_the_tolerance_is_the_gradient_of_real_data() -> None:
    energy = Quadratic(1.0, 1.0, 1.0)
    data = torch.randn(999, 3).double()
    norms = data.norm(dim=1)
    assert resting_norm(energy, data) == pytest.approx(norms.median().item())
    assert resting_norm(energy, data, quantile=0.1) == pytest.approx(norms.quantile(0.1).item())


def test_a_baseline_has_no_energy_to_descend() -> None:
    with pytest.raises(NoEnergyError):
        Armijo()(build_denoiser(MLP((2,), width=8), 0.5, "unconstrained"), seeds=[0])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GradientDescent(0), "steps is 0"),
        (lambda: GradientDescent(step_size=0.0), "step_size 0.0"),
        (lambda: GradientDescent(tolerance=-1.0), "tolerance -1.0"),
        (lambda: Armijo(c=0.0), "c is 0.0"),
        (lambda: GradientDescent(sigma=0.0), "sigma must be positive"),
        (lambda: resting_norm(Quadratic(1.0), torch.zeros(2, 1), quantile=2), "quantile is 2"),
    ],
)
def test_settings_that_are_none_are_refused(build, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build()
