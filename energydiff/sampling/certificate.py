"""Did V fall at every step? A pure function of a trace."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from energydiff.errors import NoEnergyError
from energydiff.sampling.trace import Claim, Trace

# Roundings behind one V: a network's value is a chain of some dozens of float operations whose
# errors add up at worst. Tied to the dtype and the size of V alone.
ROUNDINGS = 32


@dataclass(frozen=True)
class Certificate:
    """The Lyapunov function along a set of trajectories, in counts.

    Attributes:
        holds: V fell, or stayed within rounding, at every step of every sample.
        claim: ``proved``, ``enforced`` or ``observed``; see :class:`Trace`.
        steps: steps examined, summed over samples.
        rises: of these, how many raised V.
        worst_rise: largest rise of V in one step, squared units of x; 0 if it never rose.
        worst_sample, worst_step: where that was; ``None`` if it never rose.
        descent_rises: steps whose descent part (the move at fixed σ) raised V.
        landscape_rises: steps whose landscape part (the change of σ at fixed x) raised V.
        bound_misses: steps whose descent part fell by less than theory grants an exact energy.
        tolerance: largest rounding allowance used, squared units of x.
    """

    holds: bool
    claim: Claim
    steps: int
    rises: int
    worst_rise: float
    worst_sample: int | None
    worst_step: int | None
    descent_rises: int
    landscape_rises: int
    bound_misses: int
    tolerance: float

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON."""
        return asdict(self)


def certify(trace: Trace | None) -> Certificate:
    """Check a trace. A value that is not finite counts as a rise.

    Raises:
        NoEnergyError: there is no trace, because the model has no energy or recording was off.
    """
    if trace is None:
        raise NoEnergyError(
            "nothing to certify: there is no trace, because the model has no energy or recording"
            " was switched off."
        )
    tolerance = rounding_tolerance(trace)
    total = trace.descent + trace.landscape
    rose = rises(total, tolerance)
    excess = torch.where(rose, total.nan_to_num(nan=torch.inf, neginf=torch.inf), 0.0)
    worst_step, worst_sample = divmod(int(excess.argmax()), excess.shape[1])
    any_rise = bool(rose.any())
    return Certificate(
        holds=not any_rise,
        claim=trace.claim,
        steps=total.numel(),
        rises=int(rose.sum()),
        worst_rise=float(excess.max()),
        worst_sample=worst_sample if any_rise else None,
        worst_step=worst_step if any_rise else None,
        descent_rises=int(rises(trace.descent, tolerance).sum()),
        landscape_rises=int(rises(trace.landscape, tolerance).sum()),
        bound_misses=int(rises(trace.descent + trace.bound, tolerance).sum()),
        tolerance=float(tolerance.max()),
    )


def rises(change: Tensor, tolerance: Tensor) -> Tensor:
    """Which changes of V are rises beyond rounding, as is any not finite; (steps, B) bool."""
    return ~(change <= tolerance) | ~change.isfinite()


def rounding_tolerance(trace: Trace) -> Tensor:
    """What rounding alone can add to a change of V: (steps, B), scaled by |V| and its dtype.

    V = σ²[E − (d/2) log 2πσ²] is a difference, so its terms set the scale beside V itself.
    """
    sigma = trace.sigma.to(trace.energy.dtype)[:, None]
    scale = torch.maximum(trace.free_energy.abs(), (sigma**2 * trace.energy).abs())
    scale = scale.nan_to_num(nan=0.0, posinf=0.0)  # such a change is a rise at any tolerance
    return ROUNDINGS * torch.finfo(scale.dtype).eps * torch.maximum(scale[1:], scale[:-1])
