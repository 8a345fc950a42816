"""Did V fall at every step? A pure function of a trace."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from energydiff.errors import NoEnergyError
from energydiff.sampling import words
from energydiff.sampling.path import Place
from energydiff.sampling.trace import Claim, Trace

# Roundings behind one V: a network's value is a chain of some dozens of float operations whose
# errors add up at worst. Tied to the dtype and the size of V alone.
ROUNDINGS = 32
# Of x itself: the product and the sum of a step, and the differences from the data within V.
ROUNDINGS_OF_X = 4


@dataclass(frozen=True)
class Certificate:
    """The Lyapunov function along a set of trajectories, in counts; ``str`` says it in sentences.

    It is about the descent of V alone: no count says how good the samples are.

    Attributes:
        holds: V fell, or stayed within rounding, at every step of every sample. ``None`` for a
            stochastic sampler, whose noise raises V: it has rates and nothing to pass.
        claim: what kind of statement a pass is; see :class:`~energydiff.sampling.trace.Claims`.
        descent_claim, landscape_claim: the same for the two parts of a step.
        steps: steps examined, summed over samples. ``samples``: how many these are.
        rises: of these, how many raised V.
        rising_samples: samples with at least one rise; which ones, :func:`rising` says.
        worst_rise: largest rise of V in one step, squared units of x; 0 if it never rose.
        worst_sample, worst_step, worst_sigma: where that was, and the noise at the start of that
            step; ``None`` if it never rose.
        descent_rises: steps whose descent part (the move at fixed σ) raised V.
        landscape_rises: steps whose landscape part (the change of σ at fixed x) raised V.
        bound_misses: steps whose descent part fell by less than theory grants an exact energy.
        armijo_min, armijo_median: the descent part as a share of that bound, over the steps whose
            bound is ten times the tolerance; ``None`` if there is none or the sampler is
            stochastic. An exact energy's Euler steps have ≥ 1.
        fallbacks: steps at which a guard, or Metropolis, refused a proposal.
        tolerance: largest rounding allowance used, squared units of x; V's terms grow with σ², and
            ``tolerance_sigma`` is the noise at the start of that step.
        final_tolerance: the same of the last step.
        precision: that V was computed in; float32 is full float32, never TF32.
    """

    holds: bool | None
    claim: Claim
    descent_claim: Claim
    landscape_claim: Claim
    steps: int
    samples: int
    rises: int
    rising_samples: int
    worst_rise: float
    worst_sample: int | None
    worst_step: int | None
    worst_sigma: float | None
    descent_rises: int
    landscape_rises: int
    bound_misses: int
    armijo_min: float | None
    armijo_median: float | None
    fallbacks: int
    tolerance: float
    tolerance_sigma: float
    final_tolerance: float
    precision: str = "float32"

    def __str__(self) -> str:
        return f"The certificate {words.sentences(self)}"

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON."""
        return asdict(self)


def certify(trace: Trace | None) -> Certificate:
    """Check a trace. A value that is not finite counts as a rise.

    Raises:
        NoEnergyError: there is no trace, because the model has no energy or recording was off.
        UserError: the trace is not what was recorded.
    """
    if trace is None:
        raise NoEnergyError(
            "nothing to certify: there is no trace, because the model has no energy or recording"
            " was switched off."
        )
    trace.require_untouched()
    tolerance = rounding_tolerance(trace)
    total = trace.descent + trace.landscape
    rose = rises(total, tolerance)
    excess = torch.where(rose, total.nan_to_num(nan=torch.inf, neginf=torch.inf), 0.0)
    worst_step, worst_sample = divmod(int(excess.argmax()), excess.shape[1])
    any_rise = bool(rose.any())
    telling = trace.bound > 10 * tolerance
    armijo = (-trace.descent / trace.bound)[telling].double()
    has_bound = len(armijo) > 0 and trace.claim != "stochastic"
    return Certificate(
        holds=None if trace.claim == "stochastic" else not any_rise,
        claim=trace.claim,
        descent_claim=trace.descent_claim,
        landscape_claim=trace.landscape_claim,
        steps=total.numel(),
        samples=total.shape[1],
        rises=int(rose.sum()),
        rising_samples=int(rose.any(0).sum()),
        worst_rise=float(excess.max()),
        worst_sample=worst_sample if any_rise else None,
        worst_step=worst_step if any_rise else None,
        worst_sigma=float(trace.sigma[worst_step]) if any_rise else None,
        descent_rises=int(rises(trace.descent, tolerance).sum()),
        landscape_rises=int(rises(trace.landscape, tolerance).sum()),
        bound_misses=int(rises(trace.descent + trace.bound, tolerance).sum()),
        armijo_min=float(armijo.min()) if has_bound else None,
        armijo_median=float(armijo.median()) if has_bound else None,
        fallbacks=0 if trace.fallbacks is None else int((trace.fallbacks > 0).sum()),
        tolerance=float(tolerance.max()),
        tolerance_sigma=float(trace.sigma[tolerance.amax(1).argmax()]),
        final_tolerance=float(tolerance[-1].max()),
        precision=str(trace.energy.dtype).removeprefix("torch."),
    )


def rising(trace: Trace) -> Tensor:
    """Where V rose beyond rounding: (steps, B) bool. Its mean over samples is the rate per step."""
    return rises(trace.descent + trace.landscape, rounding_tolerance(trace))


def rises(change: Tensor, tolerance: Tensor) -> Tensor:
    """Which changes of V are rises beyond rounding, as is any not finite; (steps, B) bool."""
    return ~(change <= tolerance) | ~change.isfinite()


def rounding_tolerance(trace: Trace) -> Tensor:
    """What rounding alone can add to a change of V: (steps, B)."""
    at_points = rounding(
        trace.free_energy,
        trace.energy,
        trace.sigma.to(trace.energy.dtype)[:, None],
        0.0 if trace.x_norm is None else trace.grad_norm * trace.x_norm,
    )
    return torch.maximum(at_points[1:], at_points[:-1])


def rounding(
    free_energy: Tensor, energy: Tensor, sigma: float | Tensor, slope: float | Tensor
) -> Tensor:
    """The rounding of V at a point, scaled by its terms and its dtype.

    V = σ²[E − (d/2) log 2πσ²] is a difference, so its terms set the scale beside V itself; and x
    is rounded too, which moves V by ``slope`` = ‖∇V‖‖x‖ times the rounding of x.
    """
    scale = ROUNDINGS * torch.maximum(free_energy.abs(), (sigma**2 * energy).abs())
    scale = scale + ROUNDINGS_OF_X * slope
    scale = scale.nan_to_num(nan=0.0, posinf=0.0)  # such a change is a rise at any tolerance
    return torch.finfo(scale.dtype).eps * scale


def allowance(here: Place) -> Tensor:
    """What a decision at a point may forgive as rounding, (B,): half of what a certificate does.

    The other half is for evaluating V once more when it is recorded.
    """
    slope: float | Tensor = 0.0
    if here.x is not None:
        slope = here.residual.flatten(1).norm(dim=1) * here.x.flatten(1).norm(dim=1)
    return 0.5 * rounding(here.free_energy, here.energy, here.sigma, slope)
