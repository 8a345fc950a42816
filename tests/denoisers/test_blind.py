"""Noise-blind energies: their gradients, what σ means to them, and where descent ends."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from energydiff.denoisers import BlindEnergy, build_denoiser
from energydiff.errors import UserError
from energydiff.potentials import MLP, UNet
from energydiff.sampling import (
    Armijo,
    Euler,
    GradientDescent,
    Langevin,
    certify,
    karras_sigmas,
    resting_norm,
)

every_form = pytest.mark.parametrize("form", ["dot", "squared_norm", "coercive"])
DIM = 5


def blind(form: str, seed: int = 0, classes: int = 0) -> BlindEnergy:
    """With random weights, float64."""
    torch.manual_seed(seed)
    energy = build_denoiser(MLP((DIM,), 16, 1, classes), 1.0, form).double().eval()
    with torch.no_grad():
        for parameter in energy.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    assert isinstance(energy, BlindEnergy)
    return energy


def formula(form: str, x: Tensor, field: Tensor) -> Tensor:
    return {
        "dot": -(x * field).sum(1),
        "squared_norm": 0.5 * (x - field).square().sum(1),
        "coercive": 2 * x.square().sum(1) - 2 * (x * field).sum(1),
    }[form]


@every_form
@pytest.mark.parametrize("classes", [0, 3])
def test_energy_and_gradient_are_those_of_the_formula(form: str, classes: int) -> None:
    energy = blind(form, classes=classes)
    label = torch.tensor([0, -1, 2]) if classes else None
    x = torch.randn(3, DIM, dtype=torch.float64, requires_grad=True)
    field = energy.potential.backbone(x, torch.zeros(3, dtype=torch.float64), label)
    expected = formula(form, x, field)
    (to_x,) = torch.autograd.grad(expected.sum(), x)
    value, grad = energy.value_and_grad(x.detach(), 1.0, label)
    assert_close(value, expected.detach())
    assert_close(grad, to_x)
    assert_close(energy(x, label=label), expected)


@every_form
def test_an_image_network_fits_every_form(form: str) -> None:
    energy = build_denoiser(UNet((1, 4, 4), 4, (1, 2), 1), 1.0, form)
    value, grad = energy.value_and_grad(torch.randn(2, 1, 4, 4), 1.0)
    assert value.shape == (2,)
    assert grad.shape == (2, 1, 4, 4)
    (grad - 1).square().sum().backward()
    first = energy.potential.backbone.output.weight.grad
    assert first is not None
    assert first.abs().max() > 0  # no form is stuck at its zero-initialised output


@every_form
def test_noise_is_only_a_temperature(form: str) -> None:
    """E = H/σ²: ∇V = ∇H at every σ, and V differs from H by the same constant everywhere."""
    energy, x = blind(form), torch.randn(4, DIM, dtype=torch.float64)
    sigma = torch.tensor([0.1, 0.5, 1.0, 7.0], dtype=torch.float64)
    value, grad = energy.value_and_grad(x, sigma)
    h, grad_h = energy.value_and_grad(x, 1.0)
    assert_close(sigma**2 * value, h)
    assert_close(sigma[:, None] ** 2 * grad, grad_h)
    shift = energy.free_energy(x, 0.3) - h
    assert_close(shift, shift[:1].expand(4))


def test_what_needs_a_noise_level_is_refused() -> None:
    energy, x = blind("coercive"), torch.randn(2, DIM, dtype=torch.float64)
    with pytest.raises(UserError, match="no posterior mean"):
        energy.denoise(x, 1.0)
    with pytest.raises(UserError, match="Euler goes down noise levels: use"):
        Euler(karras_sigmas(4, 0.1, 1.0))(energy, x)
    result = Langevin(0.5, updates=3)(energy, x, seeds=[0, 1])  # at one temperature, it may
    assert result.trace is not None


@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    form=st.sampled_from(["coercive", "squared_norm"]),
    log_distance=st.floats(-3, 4),
)
def test_from_any_start_a_coercive_energy_descends_to_a_finite_minimum(
    seed: int, form: str, log_distance: float
) -> None:
    """H ≥ ½k‖x‖(‖x‖ − B) with B = ‖W‖√width, as the last layer of F is W times a normalised
    vector; so every point of a descent lies where that is at most H(start)."""
    energy = blind(form, seed)
    bound = torch.linalg.matrix_norm(energy.potential.backbone.output.weight, 2).item() * 16**0.5
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(3, DIM, dtype=torch.float64, generator=generator)
    start = 10**log_distance * direction / direction.norm(dim=1, keepdim=True)
    result = Armijo(1000, tolerance=0.05)(energy, start)
    trace = result.trace
    assert trace is not None
    assert certify(trace).holds
    assert trace.energy.min() >= -0.5 * 4.0 * bound**2 / 4
    k = 4.0 if form == "coercive" else 1.0
    radius = 0.5 * (bound + (bound**2 + 8 * trace.energy[0].clamp(min=0) / k).sqrt())
    if form == "squared_norm":  # ½(‖x‖ − B)² ≤ H
        radius = bound + (2 * trace.energy[0]).sqrt()
    assert trace.x_norm is not None
    assert (trace.x_norm <= radius + 1e-9).all()
    assert (trace.grad_norm[-1] <= 0.05).all()


def test_an_inner_product_alone_falls_without_end_along_a_ray() -> None:
    energy, x = blind("dot"), torch.randn(1, DIM, dtype=torch.float64)
    with torch.no_grad():
        if energy(1e6 * x) > 0:
            energy.potential.backbone.output.weight.neg_()
    assert energy(1e6 * x) < 0.99e1 * energy(1e5 * x)
    assert energy(1e6 * x) < -1e4


def test_descent_rests_sample_by_sample_at_the_norm_chosen_on_held_out_data() -> None:
    energy, held_out = blind("coercive"), torch.randn(40, DIM, dtype=torch.float64)
    norms = energy.value_and_grad(held_out, 1.0)[1].norm(dim=1)
    tolerance = resting_norm(energy, held_out)
    assert tolerance == pytest.approx(norms.median().item(), rel=0.2)
    result = Armijo(50, tolerance=tolerance)(energy, 10 * held_out)
    assert result.trace is not None
    steps = (result.trace.grad_norm > tolerance).sum(0)
    assert steps.min() < steps.max() < 50
    assert (result.trace.grad_norm[-1] <= tolerance).all()


def test_plain_descent_with_too_long_a_step_rises_where_armijo_does_not() -> None:
    energy, x = blind("coercive"), 10 * torch.randn(8, DIM, dtype=torch.float64)
    plain, guarded = GradientDescent(20, 0.7)(energy, x), Armijo(20, 0.7)(energy, x)
    assert plain.trace is not None
    assert guarded.trace is not None
    assert not certify(plain.trace).holds
    assert certify(guarded.trace).holds
    assert certify(guarded.trace).descent_claim == "enforced"
