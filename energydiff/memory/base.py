"""What the memories share: stored patterns, an energy H(x), and an update that never raises H.

As an :class:`Energy` in nats, a memory is the Gibbs energy at temperature σ²,

    E(x, σ) = H(x)/σ²,    so that V = H − (d/2) σ² log 2πσ²

is H up to a constant. σ is 1 where it is not given: ``memory.energy(x)`` is H(x). No memory smooths
H by the noise, so none claims to be ``exact``; the one that is a diffusion energy at every σ is
:class:`EmpiricalData`, the log-sum-exp memory at β = 1/σ².
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from energydiff.energies.base import Energy, Sigma, per_sample
from energydiff.errors import UserError
from energydiff.memory.downhill import Here, Retrieval, Way, go
from energydiff.sampling.path import Step


class Memory(Energy):
    """A memory of patterns (K, \\*shape). A subclass writes ``hamiltonian`` and ``update``.

    Attributes:
        patterns: what is stored, (K, \\*shape).
        promise: η such that an update lowers H by at least η(1 − η/2)‖x − x'‖²; with 0, only that
            it does not raise H.
    """

    promise: float = 0.0
    patterns: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("patterns", torch.empty(0))

    def store(self, patterns: Tensor) -> Self:
        """Store K patterns (K, \\*shape) in place of any before, and return the memory."""
        patterns = torch.as_tensor(patterns)
        if patterns.ndim < 2 or len(patterns) == 0 or not patterns.is_floating_point():
            raise UserError(
                "patterns must be floating point of shape (K, *shape) with K >= 1, got"
                f" {tuple(patterns.shape)} {patterns.dtype}."
            )
        self.check_patterns(patterns)
        self.shape = tuple(patterns.shape[1:])
        self.patterns = patterns
        return self

    def check_patterns(self, patterns: Tensor) -> None:
        """``UserError`` for patterns that this memory cannot hold."""

    @abstractmethod
    def hamiltonian(self, x: Tensor) -> Tensor:
        """H(x), (B, d) to (B,)."""

    @abstractmethod
    def update(self, x: Tensor, held: Tensor) -> Tensor:
        """The next state x' (B, d), with H(x') ≤ H(x); x' = x where ``held`` (B, d)."""

    def start(self, x: Tensor) -> Tensor:
        """The state that retrieval from ``x`` (B, d) starts at."""
        return x

    def __call__(self, x: Tensor, sigma: Sigma = 1.0, label: Tensor | None = None) -> Tensor:
        return super().__call__(x, sigma, label)

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        return self.hamiltonian(x.flatten(1)) / sigma.square()

    def check(self, x: Tensor, label: Tensor | None = None) -> None:
        self.check_states(x)  # before anything asks for the shape of what is stored
        super().check(x, label)

    def retrieve(
        self,
        x: Tensor,
        clamp: Tensor | None = None,
        *,
        steps: int = 100,
        tolerance: float = 1e-6,
    ) -> Retrieval:
        """Update ``x`` (B, \\*shape) until it rests: see :func:`energydiff.memory.retrieve`."""
        return go(_Update(self), x, clamp, steps, tolerance)

    def check_states(self, x: Tensor) -> None:
        """``UserError`` unless something is stored and ``x`` is (B, \\*shape) like it."""
        if not len(self.patterns):
            raise UserError(f"{type(self).__name__} is empty: call store(patterns) first.")
        if tuple(x.shape[1:]) != self.shape:
            raise UserError(
                f"x has shape {tuple(x.shape)}; the stored patterns ask for (B, *{self.shape})."
            )

    def describe(self) -> dict[str, Any]:
        self.check_states(self.patterns)  # an empty memory says so
        return super().describe()

    @classmethod
    def build(cls, arguments: Mapping[str, Any], state: Mapping[str, Tensor], what: str) -> Self:
        return super().build(arguments, state, what).store(state["patterns"])

    def rows(self, like: Tensor) -> Tensor:
        """The patterns ξ as (K, d), in the dtype of ``like``."""
        return self.patterns.flatten(1).to(like)

    def extra_repr(self) -> str:
        return f"patterns={len(self.patterns)}"


class _Update(Way):
    """A memory's own update."""

    def __init__(self, memory: Memory) -> None:
        self.memory, self.levels = memory, [1.0]

    def start(self, x: Tensor) -> Tensor:
        self.memory.check_states(x)
        wide = torch.float32 if x.device.type == "mps" else torch.float64
        return self.memory.start(x.flatten(1).to(wide))

    def at(self, x: Tensor, sigma: float, held: Tensor) -> Here:
        energy = self.memory.hamiltonian(x)
        change = x - self.memory.update(x, held.flatten(1))
        return Here(x, sigma, energy, self.memory.energy_to_free_energy(energy, sigma), change)

    def move(self, here: Here, eta: Tensor) -> tuple[Tensor, Step]:
        x = here.x - per_sample(eta, here.x) * here.residual
        value = self.memory.energy_to_free_energy(self.memory.hamiltonian(x), here.sigma)
        return x, Step(self.memory.promise * eta, value)
