"""The dynamics τẋ = −∂E/∂x̂ of a hierarchical associative memory, followed to rest.

Recorded in the samplers' :class:`Trace`: these networks have no noise, so σ is 1 throughout, V and
E are both the network's energy, ``grad_norm`` is ‖∂E/∂x̂‖ over the free layers, and the landscape
part and ``bound`` are 0.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from energydiff.errors import UserError
from energydiff.memory.hierarchical import HierarchicalMemory, States
from energydiff.sampling.certificate import allowance
from energydiff.sampling.path import Step, follow
from energydiff.sampling.trace import Trace


@dataclass(frozen=True)
class Relaxation:
    """Where the network came to, and how.

    Attributes:
        states: of every layer, (B, \\*shape).
        trace: energy along the way; a rejected adaptive step counts, with no change.
        time: time reached, (B,), in the units of τ.
        at_rest: ‖∂E/∂x̂‖ of the free layers is within the tolerance, (B,).
    """

    states: States
    trace: Trace
    time: Tensor
    at_rest: Tensor


@torch.no_grad()
def relax(
    network: HierarchicalMemory,
    states: States,
    *,
    clamp: Collection[str] = (),
    dt: float = 0.1,
    steps: int = 100,
    adaptive: bool = False,
    tolerance: float = 1e-6,
    error: float = 1e-3,
) -> Relaxation:
    """Follow the dynamics for at most ``steps`` steps, or until every sample is at rest.

    Args:
        states: as made by ``network.states``.
        clamp: names of layers that are held still.
        dt: time step, units of τ; the first one if adaptive.
        adaptive: Heun's method with Euler's embedded. Each sample has its own time step; a step is
            taken only if the two agree within ``error`` and E does not rise beyond rounding, so
            the claim is ``enforced``; none is longer than the shortest τ. Otherwise Euler's method
            with a fixed step: E falls if ``dt`` is small enough, and the claim is ``observed``.
        error: largest difference of the two methods in one step, relative to 1 + |x|.
        tolerance: ‖∂E/∂x̂‖ at which a sample is at rest, units of x.
    """
    states = network.states(len(next(iter(states.values()))), **states)
    unknown = set(clamp) - set(network.layers)
    if unknown or not dt > 0 or steps < 1:
        raise UserError(
            f"relax needs dt > 0, steps >= 1 and layers of {list(network.layers)} to clamp, got"
            f" dt = {dt}, steps = {steps}, clamp = {list(clamp)}."
        )
    flow = _Flow(network, clamp)
    path = _path(flow, states, dt, steps, tolerance, error if adaptive else None)
    last, trace = follow(path, "enforced" if adaptive else "observed")
    return Relaxation(last.states, trace, last.time, last.at_rest(tolerance))


@dataclass(frozen=True)
class _Here:
    """A point of the dynamics; ``residual`` is ∂E/∂x̂ of the free layers, (B, their neurons)."""

    states: States
    time: Tensor
    energy: Tensor
    velocity: States
    residual: Tensor
    sigma: float = 1.0
    x: Tensor | None = None

    @property
    def free_energy(self) -> Tensor:
        return self.energy

    def at_rest(self, tolerance: float) -> Tensor:
        return self.residual.norm(dim=1) <= tolerance


class _Flow:
    """ẋ = −(∂E/∂x̂)/τ, 0 in clamped layers."""

    def __init__(self, network: HierarchicalMemory, clamp: Collection[str]) -> None:
        self.network = network
        self.free = [name for name in network.layers if name not in clamp]
        if not self.free:
            raise UserError("every layer is clamped: there is nothing left to relax.")

    def at(self, states: States, time: Tensor, energy: Tensor) -> _Here:
        gradient = self.network.gradient(states)
        residual = torch.cat([gradient[name].flatten(1) for name in self.free], 1)
        velocity = {
            name: -gradient[name] / self.network.layers[name].tau
            if name in self.free
            else torch.zeros_like(x)
            for name, x in states.items()
        }
        return _Here(states, time, energy, velocity, residual)


def _path(
    flow: _Flow, states: States, dt: float, steps: int, tolerance: float, error: float | None
) -> Iterator[tuple[_Here, Step | None]]:
    energy = flow.network(states)
    here = flow.at(states, torch.zeros_like(energy), energy)
    step = torch.full_like(energy, dt)
    for index in range(steps):
        if index > 0 and bool(here.at_rest(tolerance).all()):
            break
        if error is None:
            states = _add(here.states, here.velocity, step)
            there = flow.at(states, here.time + step, flow.network(states))
        else:
            there, step = _adaptive(flow, here, step, error)
        yield here, Step(0.0, there.energy)
        here = there
    yield here, None


def _adaptive(flow: _Flow, here: _Here, step: Tensor, error: float) -> tuple[_Here, Tensor]:
    """Where Heun's step is good enough, its end; else here. And the next step, (B,)."""
    end = flow.at(_add(here.states, here.velocity, step), here.time, here.energy)
    change = {n: 0.5 * (end.velocity[n] - v) for n, v in here.velocity.items()}
    correction = {n: _like(step, c) * c for n, c in change.items()}
    moved = {n: x + correction[n] for n, x in end.states.items()}
    ratio = _largest(correction, here.states) / error
    raised = flow.network(moved)
    taken = (ratio <= 1) & (raised - here.energy <= allowance(here))  # not if not finite
    there = flow.at(
        {n: torch.where(_like(taken, x), moved[n], x) for n, x in here.states.items()},
        here.time + torch.where(taken, step, 0),
        torch.where(taken, raised, here.energy),
    )
    factor = (0.9 * ratio.clamp(min=1e-12).rsqrt()).nan_to_num(nan=0.2).clamp(0.2, 2.0)
    longest = min(layer.tau for layer in flow.network.layers.values())  # beyond: rest is unstable
    return there, (step * torch.where(taken, factor, factor.clamp(max=0.5))).clamp(max=longest)


def _add(states: States, velocity: States, step: Tensor) -> States:
    return {n: x + _like(step, x) * velocity[n] for n, x in states.items()}


def _largest(correction: States, states: States) -> Tensor:
    """max |correction| / (1 + |x|) over all neurons, (B,)."""
    parts = [(c.abs() / (1 + states[n].abs())).flatten(1).amax(1) for n, c in correction.items()]
    return torch.stack(parts).amax(0)


def _like(values: Tensor, x: Tensor) -> Tensor:
    return values.view(-1, *[1] * (x.ndim - 1))
