"""The hard construction: a denoiser that is the gradient of a convex function for all weights."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from energydiff.denoisers import EnergyDenoiser, build_denoiser
from energydiff.errors import UserError
from energydiff.potentials import MLP, InputConvex
from energydiff.sampling import Euler, GradientDescent, certify, karras_sigmas

DIM = 4
random_model = given(
    seed=st.integers(0, 10_000), log_sigma=st.floats(-5, 4), spread=st.floats(0.0, 5.0)
)


def convex(seed: int, spread: float = 1.0) -> EnergyDenoiser:
    torch.manual_seed(seed)
    model = build_denoiser(InputConvex((DIM,), 8, 3), 0.7, "convex").double().eval()
    assert isinstance(model, EnergyDenoiser)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return model


def jacobian(model: EnergyDenoiser, x: Tensor, sigma: float) -> Tensor:
    columns = torch.eye(DIM, dtype=torch.float64)
    products = model.hessian_vector_product(x.expand(DIM, DIM), sigma, columns)
    return columns - sigma**2 * products


@settings(max_examples=60, deadline=None)
@random_model
def test_the_denoiser_is_monotone_whatever_the_weights(
    seed: int, log_sigma: float, spread: float
) -> None:
    model = convex(seed, spread)
    matrix = jacobian(model, 3 * torch.randn(1, DIM, dtype=torch.float64), 10**log_sigma / 10)
    eigenvalues = torch.linalg.eigvalsh((matrix + matrix.T) / 2)
    assert eigenvalues.min() >= -1e-9 * max(1.0, eigenvalues.max().item())


def test_the_same_network_without_the_convexity_is_not_monotone() -> None:
    """So that the test above can fail: MLP energies with random weights have ∇D with λ < 0."""
    torch.manual_seed(0)
    model = build_denoiser(MLP((DIM,), 8, 3), 0.7).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert isinstance(model, EnergyDenoiser)
    matrix = jacobian(model, torch.randn(1, DIM, dtype=torch.float64), 0.5)
    assert torch.linalg.eigvalsh((matrix + matrix.T) / 2).min() < -0.1


@settings(max_examples=40, deadline=None)
@random_model
def test_steps_of_any_length_up_to_two_descend_as_the_theorem_says(
    seed: int, log_sigma: float, spread: float
) -> None:
    """V(x − η∇V, σ) ≤ V(x, σ) − η(1 − η/2)‖∇V‖²."""
    model, sigma = convex(seed, spread), 10**log_sigma / 10
    x = 3 * torch.randn(20, DIM, dtype=torch.float64)
    eta = torch.linspace(0, 2, 20, dtype=torch.float64)
    residual = x - model.denoise(x, sigma)
    before = model.free_energy(x, sigma)
    after = model.free_energy(x - eta[:, None] * residual, sigma)
    bound = eta * (1 - eta / 2) * residual.square().sum(1)
    scale = before.abs() + after.abs() + bound + residual.square().sum(1) + 1e-12
    assert ((after - before + bound) <= 1e-9 * scale).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_psi_is_convex_and_the_curvature_not_negative(seed: int) -> None:
    torch.manual_seed(seed)
    network = InputConvex((DIM,), 8, 3).double()
    one, other = torch.randn(2, 50, DIM, dtype=torch.float64) * 3
    c = torch.randn(50, dtype=torch.float64)
    middle, ends = network((one + other) / 2, c)[0], [network(u, c)[0] for u in (one, other)]
    assert (middle <= (ends[0] + ends[1]) / 2 + 1e-12).all()
    assert (network(one, c)[1] >= 0).all()


def test_it_can_represent_a_denoiser_that_ignores_its_input() -> None:
    """q = 0 and ψ = 0: one point at 0. A convex φ alone could not go below ∇D = c_skip."""
    model = convex(0, 0.0)
    with torch.no_grad():
        for name in ("curvature", "readout"):
            layer = getattr(model.potential.backbone, name)
            layer.weight.zero_()
            layer.bias.fill_(-60.0)
    x = torch.randn(5, DIM, dtype=torch.float64)
    assert model.denoise(x, 0.05).abs().max() < 1e-9


def test_the_descent_part_is_proved_and_the_rest_observed() -> None:
    model, x = convex(1), torch.randn(6, DIM, dtype=torch.float64)
    trace = Euler(karras_sigmas(8, 0.05, 5.0), final_denoise=True)(model, x).trace
    assert trace is not None
    assert (trace.claim, trace.descent_claim) == ("observed", "proved")
    assert certify(trace).descent_rises == 0
    fixed = GradientDescent(5, 1.0, sigma=0.5)(model, x).trace  # no noise to go down: no landscape
    assert fixed is not None
    assert fixed.claim == "proved"
    assert certify(fixed).holds


@pytest.mark.parametrize(
    ("network", "parametrization"),
    [(InputConvex((DIM,), 8), "inner_product"), (MLP((DIM,), 8), "convex")],
)
def test_a_network_of_the_other_kind_is_refused(network, parametrization: str) -> None:
    with pytest.raises(UserError, match="convex for InputConvex"):
        build_denoiser(network, 1.0, parametrization)
