"""What a sampler records: the Lyapunov function along every trajectory.

A step from (x, σ) to (x', σ') splits into two parts, which telescope to the change of V:

    descent part    V(x', σ) − V(x, σ)      the move, at fixed noise
    landscape part  V(x', σ') − V(x', σ)    the noise change, at a fixed point

For the true density of any data both are ≤ 0 along deterministic Euler sampling, and the descent
part is at most −η(1 − η/2)‖∇V‖² with η = 1 − σ'/σ, whatever the step size: the denoiser is the
gradient of a convex function, and DDIM is gradient descent on a smoothed squared distance
(Permenter & Yuan 2024). The statement for V was derived for this project (docs/theory.md).
"""

import hashlib
from dataclasses import dataclass, fields, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from energydiff.errors import UserError

Claim = Literal["proved", "enforced", "observed", "stochastic"]


class Claims(NamedTuple):
    """What kind of statement a passed certificate is, for V and for its two parts.

    ``proved``: the construction guarantees it. ``enforced``: the sampler accepted only such steps.
    ``observed``: it was looked at. ``stochastic``: noise raises V, so there is nothing to pass.
    """

    total: Claim
    descent: Claim
    landscape: Claim


@dataclass(frozen=True)
class Trace:
    """Arrays over steps and samples, on the CPU, sealed when they are recorded.

    A final denoising x ← D(x, σ_min) is one more step, with η = 1 and σ' = σ: it has a descent
    part only, its landscape part is 0.

    Attributes:
        sigma: noise at the points of the trajectory, (steps + 1,).
        free_energy: V(x_k, σ_k), (steps + 1, B), squared units of x.
        energy: E(x_k, σ_k), (steps + 1, B), nats.
        grad_norm: ‖∇V(x_k, σ_k)‖, (steps + 1, B), units of x.
        descent: V(x_{k+1}, σ_k) − V(x_k, σ_k), (steps, B).
        landscape: V(x_{k+1}, σ_{k+1}) − V(x_{k+1}, σ_k), (steps, B).
        bound: η(1 − η/2)‖∇V‖² ≥ 0 for the η of the step that was taken; for an exact energy an
            Euler step has descent ≤ −bound, (steps, B).
        claim, descent_claim, landscape_claim: as in :class:`Claims`.
        x_norm: ‖x_k‖, (steps + 1, B), the scale of the rounding of x; ``None`` if not recorded.
        fallbacks: proposals refused at each step (a guard's, or Metropolis'), (steps, B) integers;
            ``None`` for a sampler that refuses none.
        ancestor: place in its population of the line that leads to each sample, (steps + 1, B); the
            other arrays are along these lines. ``None`` without populations, as are the next two.
        ess: effective sample size of its population after each step, before it was resampled,
            (steps, B).
        log_normalizer: estimate of log ∫ exp(−E(x, σ)) dx by its population, (steps, B).
        digest: SHA-256 of all of the above, taken when the trace is made. An array changed later,
            or ``dataclasses.replace``, no longer fits it: the seal finds slips, not forgers.
    """

    sigma: Tensor
    free_energy: Tensor
    energy: Tensor
    grad_norm: Tensor
    descent: Tensor
    landscape: Tensor
    bound: Tensor
    claim: Claim
    descent_claim: Claim = "observed"
    landscape_claim: Claim = "observed"
    x_norm: Tensor | None = None
    fallbacks: Tensor | None = None
    ancestor: Tensor | None = None
    ess: Tensor | None = None
    log_normalizer: Tensor | None = None
    digest: str = ""

    def __post_init__(self) -> None:
        if not self.digest:
            object.__setattr__(self, "digest", self._digest())

    @property
    def claims(self) -> Claims:
        return Claims(self.claim, self.descent_claim, self.landscape_claim)

    def arrays(self) -> dict[str, Tensor]:
        """The recorded arrays by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def select(self, samples: Tensor | slice) -> "Trace":
        """The trace of some samples, or of all in another order: an index into the batch."""
        self.require_untouched()
        columns = {n: a[:, samples] for n, a in self.arrays().items() if n != "sigma"}
        return replace(self, **columns, digest="")  # type: ignore[arg-type]

    def require_untouched(self) -> None:
        """``UserError`` if the trace is not what was recorded."""
        if self.digest != self._digest():
            raise UserError(
                "this trace was changed after it was recorded (its digest does not fit its arrays"
                " and claims), so it proves nothing; record it again."
            )

    def _digest(self) -> str:
        seal = hashlib.sha256(repr(tuple(self.claims)).encode())
        for name, array in self.arrays().items():
            seal.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
            seal.update(array.detach().cpu().contiguous().numpy().tobytes())
        return seal.hexdigest()


def join_traces(traces: list[Trace]) -> Trace:
    """One trace of all samples, from untouched traces of batches of one sampler and model."""
    for trace in traces:
        trace.require_untouched()
    first = traces[0]
    joined = {
        name: torch.cat([trace.arrays()[name] for trace in traces], dim=1)
        for name in first.arrays()
        if name != "sigma"
    }
    return replace(first, **joined, digest="")  # type: ignore[arg-type]
