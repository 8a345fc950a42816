"""What a sampler records: the Lyapunov function along every trajectory.

A step from (x, σ) to (x', σ') splits into two parts, which telescope to the change of V:

    descent part    V(x', σ) − V(x, σ)      the move, at fixed noise
    landscape part  V(x', σ') − V(x', σ)    the noise change, at a fixed point

For the true density of any data both are ≤ 0 along deterministic Euler sampling, and the descent
part is at most −η(1 − η/2)‖∇V‖² with η = 1 − σ'/σ, whatever the step size: the denoiser is the
gradient of a convex function, and DDIM is gradient descent on a smoothed squared distance
(Permenter & Yuan 2024). The statement for V was derived for this project (docs/theory.md).
"""

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

Claim = Literal["proved", "enforced", "observed"]


@dataclass(frozen=True)
class Trace:
    """Arrays over steps and samples, on the CPU.

    A final denoising x ← D(x, σ_min) is one more step, with η = 1 and σ' = σ: it has a descent
    part only, its landscape part is 0.

    Attributes:
        sigma: noise at the points of the trajectory, (steps + 1,).
        free_energy: V(x_k, σ_k), (steps + 1, B), squared units of x.
        energy: E(x_k, σ_k), (steps + 1, B), nats.
        grad_norm: ‖∇V(x_k, σ_k)‖, (steps + 1, B), units of x.
        descent: V(x_{k+1}, σ_k) − V(x_k, σ_k), (steps, B).
        landscape: V(x_{k+1}, σ_{k+1}) − V(x_{k+1}, σ_k), (steps, B).
        bound: η(1 − η/2)‖∇V‖² ≥ 0; for an exact energy an Euler step has descent ≤ −bound,
            (steps, B).
        claim: what kind of statement a passed certificate is: ``proved`` (the construction
            guarantees it), ``enforced`` (the sampler accepted only such steps) or ``observed``.
    """

    sigma: Tensor
    free_energy: Tensor
    energy: Tensor
    grad_norm: Tensor
    descent: Tensor
    landscape: Tensor
    bound: Tensor
    claim: Claim

    def arrays(self) -> dict[str, Tensor]:
        """The recorded arrays by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "claim"}


def join_traces(traces: list[Trace]) -> Trace:
    """One trace of all samples, from traces of batches on the same grid."""
    first = traces[0]
    joined = {
        name: torch.cat([trace.arrays()[name] for trace in traces], dim=1)
        for name in first.arrays()
        if name != "sigma"
    }
    return Trace(sigma=first.sigma, claim=first.claim, **joined)


class Recorder:
    """Collects a trace while a sampler runs; at most one extra energy evaluation per step."""

    def __init__(self) -> None:
        self._sigma: list[float] = []
        self._rows: dict[str, list[Tensor]] = {
            field.name: [] for field in fields(Trace) if field.name not in ("sigma", "claim")
        }
        self._moved: Tensor | None = None

    def at(self, sigma: float, energy: Tensor, free_energy: Tensor, residual: Tensor) -> None:
        """The state at a point of the trajectory; ``residual`` is ∇V = x − D, like x."""
        self._sigma.append(sigma)
        if self._moved is not None:
            self._add("landscape", free_energy - self._moved)
        self._add("energy", energy)
        self._add("free_energy", free_energy)
        self._add("grad_norm", residual.flatten(1).norm(dim=1))

    def moved(self, step_size: float | Tensor, free_energy: Tensor) -> None:
        """V after the move at unchanged σ, (B,); ``step_size`` is η, one or (B,)."""
        self._moved = free_energy
        self._add("descent", free_energy - self._rows["free_energy"][-1].to(free_energy))
        grad_norm = self._rows["grad_norm"][-1]
        self._add("bound", step_size * (1 - step_size / 2) * grad_norm.square())

    def _add(self, name: str, row: Tensor) -> None:
        self._rows[name].append(row.detach())

    def trace(self, claim: Claim) -> Trace:
        rows = {name: torch.stack(row).cpu() for name, row in self._rows.items()}
        return Trace(sigma=torch.tensor(self._sigma, dtype=torch.float64), claim=claim, **rows)
