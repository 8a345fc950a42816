"""Energies jointly convex in (x/σ², 1/σ²): V falls at every step of DDIM, for all weights."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from energydiff.denoisers import NaturalEnergy, build_denoiser
from energydiff.energies import GaussianMixture
from energydiff.errors import UserError
from energydiff.likelihood import heat_residual
from energydiff.potentials import MLP, InputConvex, NaturalConvex, NaturalConvexConv
from energydiff.potentials.natural_convex import Mixing
from energydiff.sampling import (
    Ancestral,
    DPMSolver2M,
    Euler,
    GradientDescent,
    Guarded,
    Heun,
    Sampler,
    certify,
    karras_sigmas,
)

SIGMA_DATA = 0.7
NETWORKS: dict[str, Callable[[int], NaturalConvex]] = {
    "dense, 2-D": lambda classes: NaturalConvex((2,), 8, 3, num_classes=classes),
    "dense, deep": lambda classes: NaturalConvex((9,), 3, 4, num_classes=classes),
    "dense, image": lambda classes: NaturalConvex((2, 3, 2), 4, 2, num_classes=classes),
    "one scalar": lambda classes: NaturalConvex((1,), 4, 5, num_classes=classes),
    "conv": lambda classes: NaturalConvexConv((1, 4, 4), 4, 3, num_classes=classes),
    "conv, odd": lambda classes: NaturalConvexConv((3, 3, 5), 3, 2, num_classes=classes),
}
every_network = pytest.mark.parametrize("name", NETWORKS)
random_weights = given(
    seed=st.integers(0, 10_000), spread=st.sampled_from([0.0, 0.3, 1.0, 3.0, 10.0])
)


def natural(name: str, seed: int, spread: float = 1.0, classes: int = 0) -> NaturalEnergy:
    """With weights moved by ``spread`` times a normal number each."""
    torch.manual_seed(seed)
    model = build_denoiser(NETWORKS[name](classes), SIGMA_DATA, "natural").double().eval()
    assert isinstance(model, NaturalEnergy)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return model


def states(model: NaturalEnergy, count: int = 16) -> tuple[Tensor, Tensor]:
    """Noisy states and noise from .002 to 80, and some far from where such noise leads."""
    sigma = torch.logspace(-2.7, 1.9, count, dtype=torch.float64)
    scale = (sigma.square() + 1).sqrt()
    scale[::4] = 3.0
    x = torch.randn(count, *model.shape, dtype=torch.float64)
    return x * scale.view(-1, *[1] * len(model.shape)), sigma


def rounding_of(model: NaturalEnergy, x: Tensor, sigma: Tensor) -> Tensor:
    """Of V, whose terms are of the size of ‖x‖² and of itself."""
    return 1e-12 * (x.square().flatten(1).sum(1) + model.free_energy(x, sigma).abs() + 1)


@every_network
@settings(max_examples=12, deadline=None)
@random_weights
def test_the_free_energy_rises_with_the_noise(name: str, seed: int, spread: float) -> None:
    """∂V/∂σ ≥ 0 at fixed x: by its derivative, and by V at two noises."""
    model = natural(name, seed, spread)
    x, sigma = states(model)
    scale = rounding_of(model, x, sigma)
    assert (model.free_energy_slope(x, sigma) * sigma >= -100 * scale).all()
    lower = sigma * torch.rand(len(sigma), dtype=torch.float64)
    fallen = model.free_energy(x, lower) - model.free_energy(x, sigma)
    assert (fallen <= scale + rounding_of(model, x, lower)).all()


@every_network
@settings(max_examples=12, deadline=None)
@random_weights
def test_steps_of_any_length_up_to_two_descend_by_the_bound(
    name: str, seed: int, spread: float
) -> None:
    """V(x − η∇V, σ) ≤ V(x, σ) − η(1 − η/2)‖∇V‖²."""
    model = natural(name, seed, spread)
    x, sigma = states(model)
    eta = 2 * torch.rand(len(x), dtype=torch.float64)
    residual = x - model.denoise(x, sigma)
    moved = x - eta.view(-1, *[1] * (x.ndim - 1)) * residual
    descent = model.free_energy(moved, sigma) - model.free_energy(x, sigma)
    bound = eta * (1 - eta / 2) * residual.square().flatten(1).sum(1)
    allowed = rounding_of(model, x, sigma) + rounding_of(model, moved, sigma) + 1e-12 * bound
    assert (descent + bound <= 10 * allowed).all()


@every_network
@settings(max_examples=6, deadline=None)
@random_weights
def test_a_certificate_is_proved_and_holds(name: str, seed: int, spread: float) -> None:
    """All of it: V, descent and landscape, for any weights and steps."""
    model = natural(name, seed, spread)
    generator = torch.Generator().manual_seed(seed)
    steps = int(torch.randint(1, 9, (1,), generator=generator))
    low, high = 10 ** (-2.7 * torch.rand(1, generator=generator)), 80.0
    sampler = Euler(karras_sigmas(steps, float(low), high), final_denoise=True)
    certificate = certify(sampler(model, seeds=range(4)).trace)
    assert certificate.claim == "proved" and certificate.holds
    assert certificate.descent_claim == certificate.landscape_claim == "proved"
    assert (certificate.descent_rises, certificate.landscape_rises) == (0, 0)
    assert certificate.bound_misses == 0


@pytest.mark.parametrize("name", ["dense, 2-D", "conv"])
def test_float32_rounding_is_allowed_for(name: str) -> None:
    """Also where V is a few ten thousandths of the ‖x‖² it is a difference from."""
    for seed in range(3):
        model = natural(name, seed, 0.3).float()
        for sampler in (Euler(karras_sigmas(60, 0.002, 80.0), True), Euler([0.003, 0.0029, 0.002])):
            certificate = certify(sampler(model, 0.5 * torch.randn(64, *model.shape)).trace)
            assert certificate.holds, str(certificate)
            assert (certificate.descent_rises, certificate.landscape_rises) == (0, 0)


def test_a_network_that_is_convex_in_x_alone_has_a_landscape_that_rises() -> None:
    """So that the tests above can fail: a convex denoiser lacks the second half."""
    torch.manual_seed(0)
    model = build_denoiser(InputConvex((5,), 8, 2), SIGMA_DATA, "convex").double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    x, sigma = torch.randn(60, 5, dtype=torch.float64), torch.logspace(-1, 1, 60).double()
    assert (model.require_energy().free_energy_slope(x, sigma) < -0.1).any()


@every_network
@settings(max_examples=8, deadline=None)
@random_weights
def test_the_log_partition_is_jointly_convex(name: str, seed: int, spread: float) -> None:
    """K(θ, s) at the middle of two points, for every label; and K(0, 0) = 0."""
    model = natural(name, seed, spread, classes=2)
    network = model.network
    label = torch.arange(12) % 3 - 1 if network.num_classes else None

    def k(theta: Tensor, s: Tensor) -> Tensor:
        t = 1 / s
        x = theta * t.view(-1, *[1] * len(model.shape))
        return (0.5 * x.square().flatten(1).sum(1) - network(x, t, label)) * s

    one, other = 5 * torch.randn(2, 12, *model.shape, dtype=torch.float64)
    s, r = torch.logspace(-4, 4, 12, dtype=torch.float64), torch.rand(12).double() + 0.1
    ends = k(one, s), k(other, r)
    middle = k((one + other) / 2, (s + r) / 2)
    scale = 1 + sum(end.abs() for end in ends) + middle.abs()
    assert (middle <= sum(ends) / 2 + 1e-11 * scale).all()
    at_zero = k(torch.zeros_like(one), torch.full((12,), 1e-40, dtype=torch.float64))
    assert_close(at_zero, torch.zeros_like(at_zero), rtol=0, atol=1e-9 * scale.max().item())


def test_a_tree_is_the_mixture_that_it_stands_for() -> None:
    """Every choice of a level for each of three scalars is a Gaussian; its weight, by hand."""
    network = NaturalConvex((3,), 2, 2, num_classes=1)
    model = build_denoiser(network, SIGMA_DATA, "natural").double().eval()
    with torch.no_grad():
        network.root.copy_(torch.tensor([[0.3, -0.4], [5.0, 0.0]]))
    first, second = (mixing.logits.softmax(2) for mixing in network.mixings)
    whole = network.root[0].softmax(0)
    choices = list(product(range(2), repeat=3))
    weights = []
    for i, j, k in choices:  # of the pairs (0, 1) and (2, nobody), the first members come first
        of_pairs = first[0, :, i] * first[2, :, j], first[1, :, k]
        weights.append((whole * (second[0] @ of_pairs[0]) * (second[1] @ of_pairs[1])).sum())
    place = torch.arange(3)
    levels = torch.tensor(choices)
    means = network.value[place, levels] * SIGMA_DATA
    std = network.raw_variance.exp().log1p().sqrt()[place, levels] * SIGMA_DATA
    mixture = GaussianMixture(means.detach(), std.detach(), torch.stack(weights).detach())
    x, sigma = states(model)
    known = mixture(x, sigma)
    assert_close(model(x, sigma, torch.zeros(len(x), dtype=torch.long)), known)


@every_network
def test_it_is_a_density_whose_noise_is_exact(name: str) -> None:
    """The heat equation, at every label, and V ≥ 0: for all weights."""
    model = natural(name, 2, 2.0, classes=2)
    x, sigma = states(model)
    assert (model.free_energy(x, sigma) >= 0).all()
    x, sigma = x[:12], sigma[:12]
    label = torch.arange(12) % 3 - 1
    assert heat_residual(model, x, sigma, label, probes=None).relative.abs().max() < 1e-9


@pytest.mark.parametrize("sigma", [0.05, 1.0])
def test_a_density_integrates_to_one(sigma: float) -> None:
    model = natural("dense, 2-D", 4)
    side = torch.linspace(-8, 8, 801, dtype=torch.float64)
    with torch.no_grad():
        density = (-model(torch.cartesian_prod(side, side), sigma)).exp()
    assert_close(float(density.sum() * (side[1] - side[0]) ** 2), 1.0, rtol=1e-6, atol=0)


def test_a_convolution_is_the_tree_with_its_weights_everywhere() -> None:
    shared, tree = NaturalConvexConv((2, 4, 3), 3, 2).double(), NaturalConvex((2, 4, 3), 3, 2)
    tree = tree.double()
    with torch.no_grad():
        tree.value.copy_(shared.value.expand_as(tree.value))
        tree.raw_variance.copy_(shared.raw_variance.expand_as(tree.raw_variance))
        tree.root.copy_(shared.root)
        for own, one in zip(tree.mixings, shared.mixings, strict=True):
            own.logits.copy_(one.logits.repeat_interleave(len(own.logits) // 2, dim=0))
    x, t = torch.randn(5, 2, 4, 3, dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    assert_close(shared(x, t), tree(x, t))


def test_a_mixing_keeps_what_is_far_below_the_largest() -> None:
    """No component's weight is lost to rounding, whatever the logits: no log 0."""
    mixing = Mixing(1, 2, 1)
    with torch.no_grad():
        mixing.logits.copy_(torch.tensor([[[-500.0, 0.0]]]))
    assert mixing(torch.tensor([[[0.0, -500.0]]])).isfinite().all()


@every_network
def test_a_fresh_network_is_a_density_at_large_noise(name: str) -> None:
    """K(0, 0) = 0: no gauge is left, E → ½‖x‖²/σ² + (d/2) log 2πσ² for all weights."""
    model = natural(name, 3, 1.0)
    sigma = 1e6
    x = sigma * torch.randn(4, *model.shape, dtype=torch.float64)
    constant = 0.5 * model.dim * torch.log(torch.tensor(2 * torch.pi * sigma**2).double())
    known = 0.5 * x.square().flatten(1).sum(1) / sigma**2 + constant
    assert_close(model(x, sigma), known, rtol=0, atol=0.05)


CLAIMS = {
    "Euler": (lambda s: Euler(s), ("proved", "proved", "proved")),
    "Heun": (lambda s: Heun(s), ("observed", "observed", "proved")),
    "DPM-Solver++": (lambda s: DPMSolver2M(s), ("observed", "observed", "proved")),
    "ancestral": (lambda s: Ancestral(s), ("stochastic", "stochastic", "proved")),
    "guarded": (lambda s: Guarded(Heun(s)), ("enforced", "enforced", "proved")),
    "descent": (lambda _: GradientDescent(5, 1.5), ("proved", "proved", "proved")),
    "too long a descent": (lambda _: GradientDescent(5, 2.5), ("observed", "observed", "proved")),
}


@pytest.mark.parametrize("sampler", CLAIMS)
def test_only_what_a_theorem_covers_is_proved(sampler: str) -> None:
    make, claims = CLAIMS[sampler]
    method: Sampler = make(karras_sigmas(3, 0.1, 1.0))
    assert method.claims(natural("dense, 2-D", 0)) == claims


@pytest.mark.parametrize(
    ("network", "parametrization", "named"),
    [
        (MLP((4,), 8), "natural", "natural is for NaturalConvex"),
        (InputConvex((4,), 8), "natural", "natural is for NaturalConvex"),
        (NaturalConvex((4,), 8), "inner_product", "natural for NaturalConvex"),
        (NaturalConvex((4,), 8), "unconstrained", "train"),
    ],
)
def test_a_network_of_the_other_kind_is_refused(network, parametrization: str, named: str) -> None:
    with pytest.raises(UserError, match=named):
        build_denoiser(network, 1.0, parametrization)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: NaturalConvex((4,), levels=0), "levels is 0"),
        (lambda: NaturalConvexConv((1, 4, 4), states=0), "states is 0"),
        (lambda: NaturalConvexConv((4,)), "takes images"),
    ],
)
def test_a_network_that_cannot_be_built_says_why(make, named: str) -> None:
    with pytest.raises(UserError, match=named):
        make()


def test_the_defaults_work() -> None:
    for network in (NaturalConvex((2,)), NaturalConvexConv((1, 8, 8))):
        model = build_denoiser(network, 0.5, "natural").eval()
        assert certify(Euler(karras_sigmas(4, 0.02, 10.0))(model, seeds=range(4)).trace).holds
