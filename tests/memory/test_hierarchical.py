"""Hierarchical memories: E never rises along the dynamics, and what makes that so."""

import random

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from energydiff.errors import UserError
from energydiff.memory import (
    Convolution,
    Dense,
    Function,
    HierarchicalMemory,
    Layer,
    TinyBrain,
    relax,
)
from energydiff.memory import lagrangians as lag
from energydiff.sampling import certify


def lagrangians(eps: float) -> list[lag.Lagrangian]:
    """One of each; ``eps`` rounds the kinks of the norms."""
    return [
        lag.Identity(),
        lag.Repu(2),
        lag.Repu(3),
        lag.Exp(0.5),
        lag.Rexp(0.5),
        lag.Tanh(1.5),
        lag.Sigmoid(2.0),
        lag.Softmax(3.0),
        lag.Ghostmax(2.0),
        lag.LayerNorm(1.2, 0.3, eps),
        lag.SphericalNorm(0.9, eps),
    ]


def coupled_by_squares(a: Tensor, b: Tensor) -> Tensor:
    """A user's synapse that is not bilinear."""
    return -0.1 * (a.flatten(1).tanh().sum(1) * b.flatten(1).cos().sum(1))


def random_network(seed: int, eps: float = 1e-5) -> tuple[HierarchicalMemory, dict[str, Tensor]]:
    """2 to 5 layers, any Lagrangians and time constants, a chain of synapses and some shortcuts."""
    choose, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    count, kinds = 2 + seed % 4, lagrangians(eps)
    layers = {
        f"layer{i}": Layer(
            *choose.choice([(4,), (7,), (3, 5), (2, 3, 3)]),
            # every Lagrangian in turn
            lagrangian=kinds[(seed + 3 * i) % len(kinds)],
            tau=choose.choice([0.5, 1.0, 3.0]),
        )
        for i in range(count)
    }
    names = list(layers)
    pairs = [(names[i], names[i + 1]) for i in range(count - 1)]
    pairs += [(names[0], choose.choice(names)) for _ in range(count - 2)]
    synapses: list[tuple[nn.Module, tuple[str, str]]] = []
    for a, b in pairs:
        sizes = [torch.Size(layers[n].shape).numel() for n in (a, b)]
        dense = Dense(0.5 * Dense.random(*sizes, generator).weight.detach().double())
        synapses.append((dense, (a, b)))
    synapses.append((Function(coupled_by_squares), (names[0], names[-1])))
    network = HierarchicalMemory(layers, synapses)
    states = {
        n: torch.randn(3, *layer.shape, generator=generator, dtype=torch.float64)
        for n, layer in layers.items()
    }
    return network, states


@pytest.mark.parametrize("clamped", [False, True], ids=["free", "clamped"])
@pytest.mark.parametrize("adaptive", [False, True], ids=["euler", "adaptive"])
def test_the_energy_never_rises_in_200_random_networks(adaptive: bool, clamped: bool) -> None:
    """Euler's step must be short against the kinks, √ε/γ; the adaptive step finds its own length.

    The 1e-13 is rounding: E is a sum of some tens of terms of order one.
    """
    fell, steps, eps = 0, *((10, 1e-5) if adaptive else (15, 0.1))
    mine = range(50 * (2 * adaptive + clamped), 50 * (2 * adaptive + clamped) + 50)
    for seed in mine:
        network, states = random_network(seed, eps)
        clamp = [f"layer{seed % len(states)}"] if clamped else []
        result = relax(network, states, clamp=clamp, dt=0.02, steps=steps, adaptive=adaptive)
        assert bool(result.trace.energy.isfinite().all())
        assert float(result.trace.descent.max()) <= 1e-13 * float(result.trace.energy.abs().max())
        assert certify(result.trace).claim == ("enforced" if adaptive else "observed")
        assert all(torch.equal(result.states[name], states[name]) for name in clamp)
        fell += bool((result.trace.energy[-1] < result.trace.energy[0]).all())
    assert fell == len(mine)


def test_the_gradient_is_that_of_the_energy_in_the_activations() -> None:
    """∂E/∂x = ∇²L · ∂E/∂x̂, with ∂E/∂x by autograd through everything."""
    network, states = random_network(3)
    states = {n: x.requires_grad_() for n, x in states.items()}
    direct = torch.autograd.grad(network(states).sum(), list(states.values()))
    gradient = network.gradient(states)
    active = network.activations(states)
    pulled = torch.autograd.grad(
        [active[n] for n in states], list(states.values()), [gradient[n] for n in states]
    )
    assert_close(pulled, direct, rtol=1e-10, atol=1e-12)


def test_the_gradient_is_the_same_in_every_mode() -> None:
    network, states = random_network(5)
    expected = {n: g.detach() for n, g in network.gradient(states).items()}
    assert not any(x.requires_grad for x in states.values()), "the caller's tensors are untouched"
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            for name, gradient in network.gradient({n: x * 1 for n, x in states.items()}).items():
                assert_close(gradient, expected[name], rtol=0, atol=0)


def test_the_weights_learn_through_the_gradient() -> None:
    network = TinyBrain(2 * torch.ones(3, 2), visible=lag.Tanh())
    gradient = network.gradient(network.states(1, v=torch.ones(1, 3)))
    gradient["v"].square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in network.parameters())


def test_adaptive_steps_do_not_depend_on_the_batch_and_find_the_same_rest() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    network = TinyBrain(weight, lag.Tanh(), lag.Softmax(2.0), tau_memory=0.2)
    states = network.states(3, v=torch.randn(3, 6, generator=generator, dtype=torch.float64))
    together = relax(network, states, steps=300, adaptive=True)
    alone = relax(network, {n: x[1:2] for n, x in states.items()}, steps=300, adaptive=True)
    small = relax(network, states, dt=0.02, steps=3000)
    assert bool(together.at_rest.all() and alone.at_rest.all() and small.at_rest.all())
    for name, x in together.states.items():
        assert_close(x[1:2], alone.states[name], rtol=0, atol=1e-4)
        assert_close(x, small.states[name], rtol=0, atol=1e-4)
    assert len(together.trace.descent) < len(small.trace.descent) / 4


def test_an_adaptive_step_that_is_far_too_long_is_refused() -> None:
    network, states = random_network(8)
    assert certify(relax(network, states, dt=1e6, steps=60, adaptive=True).trace).descent_rises == 0
    assert certify(relax(network, states, dt=1e6, steps=2).trace).descent_rises > 0


def test_a_network_at_rest_stays_and_has_a_trace() -> None:
    network = TinyBrain(torch.ones(3, 2), memory=lag.Identity())
    result = relax(network, network.states(4), steps=10)
    assert bool(result.at_rest.all()) and certify(result.trace).holds
    assert result.trace.descent.shape == (1, 4)


def test_adaptive_steps_come_to_rest_in_float32() -> None:
    """Rounding of E does not stop them, and stays within what a certificate allows."""
    generator = torch.Generator().manual_seed(0)
    layers = {"v": Layer(200), "h": Layer(50, lagrangian=lag.Tanh(2.0)), "m": Layer(9)}
    synapses = [(Dense.random(200, 50, generator), "vh"), (Dense.random(50, 9, generator), "hm")]
    network = HierarchicalMemory(layers, synapses)
    start = network.states(3, v=torch.randn(3, 200, generator=generator))
    result = relax(network, start, clamp=["v"], steps=200, adaptive=True, tolerance=1e-3)
    assert bool(result.at_rest.all()) and certify(result.trace).holds


def test_a_fast_softmax_memory_makes_the_log_sum_exp_memory() -> None:
    """At rest in m, E(v) = ½‖v‖² − (1/β) logsumexp(β Wᵀv)."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    v = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    network = TinyBrain(weight, memory=lag.Softmax(2.0))
    energy = network({"v": v, "m": v @ weight})
    closed = 0.5 * v.square().sum(1) - (2.0 * v @ weight).logsumexp(1) / 2.0
    assert_close(energy, closed, rtol=1e-12, atol=1e-12)


def test_a_convolution_is_its_dense_matrix() -> None:
    kernel = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0)).double()
    image, hidden = torch.randn(3, 1, 5, 5).double(), torch.randn(3, 2, 5, 5).double()
    synapse = Convolution(kernel, padding=1)
    rows = nn.functional.conv2d(
        torch.eye(25, dtype=torch.float64).view(25, 1, 5, 5), kernel, padding=1
    )
    assert_close(synapse(image, hidden), Dense(rows.flatten(1))(image, hidden))
    layers = {"v": Layer(1, 5, 5), "h": Layer(2, 5, 5, lagrangian=lag.Tanh())}
    network = HierarchicalMemory(layers, [(synapse, ("v", "h"))])
    result = relax(network, network.states(3, v=image), clamp=["v"], steps=30)
    assert certify(result.trace).holds
    with pytest.raises(UserError, match="Convolution does not fit"):
        HierarchicalMemory({"v": Layer(1, 5, 5), "h": Layer(2, 3, 3)}, [(synapse, ("v", "h"))])


def test_mistakes_are_named() -> None:
    layers = {"v": Layer(3), "m": Layer(2)}
    with pytest.raises(UserError, match="joins \\['x'\\]"):
        HierarchicalMemory(layers, [(Dense(torch.ones(3, 2)), ("v", "x"))])
    with pytest.raises(UserError, match="Dense does not fit"):
        HierarchicalMemory(layers, [(Dense(torch.ones(2, 2)), ("v", "m"))])
    with pytest.raises(UserError, match="one energy per sample"):
        HierarchicalMemory(layers, [(Function(lambda v: v.sum()), ("v",))])
    network = TinyBrain(torch.ones(3, 2))
    with pytest.raises(UserError, match="does not fit 1 samples"):
        network.states(1, v=torch.ones(1, 4))
    with pytest.raises(UserError, match="to clamp"):
        relax(network, network.states(1), clamp=["w"])
    with pytest.raises(UserError, match="nothing left"):
        relax(network, network.states(1), clamp=["v", "m"])
