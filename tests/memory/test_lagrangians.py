"""Every Lagrangian: activation = ∇L, convexity, the Legendre identity, and no overflow."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd.functional import hessian
from torch.testing import assert_close

from energydiff.errors import UserError
from energydiff.memory import lagrangians as lag

DELTA = torch.linspace(-1, 1, 5, dtype=torch.float64)
ALL = {
    "identity": lag.Identity(),
    "relu": lag.Repu(2),
    "repu": lag.Repu(3),
    "exp": lag.Exp(0.7),
    "rexp": lag.Rexp(1.3),
    "tanh": lag.Tanh(1.7),
    "sigmoid": lag.Sigmoid(0.6),
    "softmax": lag.Softmax(2.0),
    "ghostmax": lag.Ghostmax(1.4),
    "layer_norm": lag.LayerNorm(1.3, DELTA),
    "spherical_norm": lag.SphericalNorm(0.8),
}
every = pytest.mark.parametrize("lagrangian", ALL.values(), ids=ALL)
seeds = st.integers(0, 2**31 - 1)
scales = st.sampled_from([0.01, 1.0, 5.0])


few = settings(max_examples=20, deadline=None)


def curvatures(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """∇² at every token, (tokens, D, D)."""
    return torch.stack([hessian(function, token) for token in x.flatten(0, -2)])


def gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(function(x).sum(), x)[0]


def tokens(seed: int, scale: float) -> Tensor:
    """(2, 3, 5): samples, tokens, neurons."""
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)


@every
@few
@given(seeds, scales)
def test_the_activation_is_the_gradient(
    lagrangian: lag.Lagrangian, seed: int, scale: float
) -> None:
    x = tokens(seed, scale)
    assert lagrangian(x).shape == x.shape[:-1]
    assert_close(lagrangian.activation(x), gradient(lagrangian, x), rtol=1e-12, atol=1e-13)


@every
@few
@given(seeds, scales)
def test_it_is_convex(lagrangian: lag.Lagrangian, seed: int, scale: float) -> None:
    """No negative curvature, and the value lies above every tangent plane."""
    x, y = tokens(seed, scale), tokens(seed + 1, scale)
    curvature = torch.linalg.eigvalsh(curvatures(lagrangian, x))
    assert bool((curvature >= -1e-14 * (1 + curvature.abs().amax(-1, keepdim=True))).all())
    tangent = lagrangian(x) + (lagrangian.activation(x) * (y - x)).sum(-1)
    assert bool((lagrangian(y) - tangent >= -1e-12 * (1 + tangent.abs())).all())


@every
@few
@given(seeds, scales)
def test_the_layer_energy_is_the_legendre_transform(
    lagrangian: lag.Lagrangian, seed: int, scale: float
) -> None:
    """⟨x̂, x⟩ − L(x) = max_y ⟨x̂, y⟩ − L(y), and its gradient is ∇²L·x, that is dL*/dx̂ = x."""
    x, y = tokens(seed, scale), tokens(seed + 1, scale)
    conjugate, active = lagrangian.layer_energy(x), lagrangian.activation(x)
    elsewhere = (active * y).sum(-1) - lagrangian(y)
    assert bool((elsewhere <= conjugate + 1e-12 * (1 + conjugate.abs())).all())
    slope = (curvatures(lagrangian, x) @ x.flatten(0, -2)[..., None]).view_as(x)
    assert_close(gradient(lagrangian.layer_energy, x), slope, rtol=1e-9, atol=1e-9)


@every
def test_tokens_and_samples_do_not_mix(lagrangian: lag.Lagrangian) -> None:
    x = tokens(0, 1.0)
    assert_close(lagrangian(x)[1, 2], lagrangian(x[1, 2]))
    assert_close(lagrangian.activation(x)[1, 2], lagrangian.activation(x[1, 2]))


@pytest.mark.parametrize(
    "name", ["tanh", "sigmoid", "softmax", "ghostmax", "layer_norm", "spherical_norm"]
)
@pytest.mark.parametrize("size", [0.0, 90.0, 1e4])
def test_large_states_overflow_nowhere(name: str, size: float) -> None:
    """float32 e^x ends at x = 88.7; values, gradients and curvatures stay finite beyond."""
    x = size * torch.tensor([1.0, -1.0, 1.0, -1.0, 0.0])
    lagrangian = ALL[name]
    assert bool(lagrangian(x).isfinite() and lagrangian.layer_energy(x).isfinite())
    assert bool(gradient(lagrangian, x).isfinite().all())
    assert bool(hessian(lagrangian, x).isfinite().all())


def test_curvature_at_zero() -> None:
    """(log cosh βx)''/β = β at 0: written with |x| it would be 0 there."""
    assert_close(hessian(lag.Tanh(1.7), torch.zeros(1)), torch.tensor([[1.7]]))


@pytest.mark.parametrize("make", [lambda: lag.Repu(1), lambda: lag.Tanh(0), lambda: lag.Exp(-1)])
def test_bad_parameters_are_named(make: object) -> None:
    with pytest.raises(UserError, match=r"n must|beta must"):
        make()  # type: ignore[operator]
