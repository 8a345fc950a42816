"""A path downhill, point by point, and the one loop that records it.

Whatever descends (a sampler, a retrieval, a relaxation, a completion) is a generator of points,
each with the step that leaves it, and :func:`follow` goes with it to its end.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from energydiff.sampling.population import Resampled
from energydiff.sampling.trace import Claim, Claims, Trace


class Place(Protocol):
    """What is recorded of a point: its noise, E and V (B,), ∇V, and x where its rounding counts."""

    @property
    def x(self) -> Tensor | None: ...
    @property
    def sigma(self) -> float: ...
    @property
    def energy(self) -> Tensor: ...
    @property
    def free_energy(self) -> Tensor: ...
    @property
    def residual(self) -> Tensor: ...


@dataclass(frozen=True)
class Step:
    """What is recorded of a step.

    Attributes:
        step_size: η of its bound, one for all or (B,).
        free_energy: V after the move at unchanged σ, (B,); ``None`` if σ does not change, so that
            it is V at the next point.
        fallbacks: proposals refused before this one, (B,), by what can refuse.
        resampled: of a population, where each sample came from; else each from itself.
    """

    step_size: float | Tensor
    free_energy: Tensor | None = None
    fallbacks: Tensor | None = None
    resampled: Resampled | None = None


P = TypeVar("P", bound=Place)


def follow(path: Iterable[tuple[P, Step | None]], claims: Claims | Claim) -> tuple[P, Trace]:
    """Follow a path: its last point, with no step from it, and the record of all.

    Where populations are resampled, the record is of the lines that lead to the last samples.

    Args:
        claims: of the trace; one stands for V and both its parts.
    """
    sigma: list[float] = []
    rows: dict[str, list[Tensor]] = defaultdict(list)
    resampled: list[Resampled] = []
    came: Step | None = None
    for here, step in path:
        if came is not None:
            moved = here.free_energy if came.free_energy is None else came.free_energy
            before = rows["free_energy"][-1].to(moved)
            before = before if came.resampled is None else before[came.resampled.parents]
            rows["descent"].append(moved - before)
            rows["landscape"].append(here.free_energy - moved)
        grad_norm = here.residual.flatten(1).norm(dim=1)
        sigma.append(here.sigma)
        rows["energy"].append(here.energy)
        rows["free_energy"].append(here.free_energy)
        rows["grad_norm"].append(grad_norm)
        if here.x is not None:
            rows["x_norm"].append(here.x.flatten(1).norm(dim=1))
        if step is not None:
            if step.resampled is not None:
                resampled.append(step.resampled)
                rows["ess"].append(step.resampled.ess)
                rows["log_normalizer"].append(step.resampled.log_normalizer)
                grad_norm = grad_norm[step.resampled.parents]
            bound = step.step_size * (1 - step.step_size / 2) * grad_norm.square()
            rows["bound"].append(bound.clamp(min=0))
            if step.fallbacks is not None:
                rows["fallbacks"].append(step.fallbacks)
        came = step
    arrays: dict[str, Any] = {n: torch.stack(values).detach().cpu() for n, values in rows.items()}
    if resampled:
        parents = torch.stack([each.parents for each in resampled]).cpu()
        arrays = _along_lines(arrays, parents, resampled[0].particles)
    total, descent, landscape = (claims,) * 3 if isinstance(claims, str) else claims
    return here, Trace(
        sigma=torch.tensor(sigma, dtype=torch.float64),
        claim=total,
        descent_claim=descent,
        landscape_claim=landscape,
        **arrays,
    )


def _along_lines(arrays: dict[str, Tensor], parents: Tensor, particles: int) -> dict[str, Tensor]:
    """What was recorded place by place, along the lines of the last samples, and these lines.

    Args:
        parents: row of the batch that each came from, (steps, B).
        particles: samples in a population, so that lines are told by places in it.
    """
    steps, count = parents.shape
    line = torch.arange(count).expand(steps + 1, count).clone()
    for step in reversed(range(steps)):
        line[step] = parents[step][line[step + 1]]
    along = {name: values.gather(1, line[-len(values) :]) for name, values in arrays.items()}
    return along | {"ancestor": line % particles}
