"""Two models, or two sets of training seeds, side by side: the paired comparison."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from energydiff.data.split import require_held_out
from energydiff.errors import UserError
from energydiff.evaluation.arms import costs, measure_arm, quality_curve
from energydiff.evaluation.candidate import DEGRADATION, Candidate
from energydiff.evaluation.intervals import t_interval
from energydiff.evaluation.kid import kid_difference
from energydiff.evaluation.measurement import Measurement
from energydiff.evaluation.opened import OpenedModel
from energydiff.evaluation.records import (
    Arm,
    Comparison,
    Controls,
    Cost,
    CurvePoint,
    Interval,
    Matched,
    Result,
)


def compare(
    measurement: Measurement,
    a: Sequence[OpenedModel],
    b: Sequence[OpenedModel],
    steps: Sequence[int] = (),
    controls: bool = True,
) -> Comparison:
    """A against B at the same noise.

    Args:
        a, b: one model each, or several training seeds, paired in their order.
        steps: of the quality–cost curve.
        controls: also draw A with other seeds and blurred, to see what this n can tell apart.
    """
    if len(a) != len(b):
        raise UserError(
            f"training seeds are compared in pairs: {len(a)} models on one side and {len(b)} on"
            " the other."
        )
    require_held_out(measurement.splits.held_out, "a comparison")
    sides = [[measurement.candidate(model) for model in side] for side in (a, b)]
    for side in sides:
        _require_distinct(side)
    provenance, *others = (measurement.provenance(model.saved) for model in (*a, *b))
    for other in others:
        provenance.require_same(other)
    settings = measurement.settings
    features = [[c.features(0, settings.num_samples) for c in side] for side in sides]
    firsts = [side[0].model.saved for side in sides]
    own = settings.steps
    measured = {k: costs(firsts, replace(settings, steps=k)) for k in {own, *steps}}
    arms = []
    for i, side in enumerate(sides):
        curve = quality_curve(side[0], steps, [measured[k][i] for k in steps], measurement)
        arms.append(measure_arm(side, features[i], measurement, measured[own][i], curve))
    pure = [[measurement.extractor.features(f) for f in found] for found in features]
    differences = np.subtract(arms[0].block_frechet, arms[1].block_frechet)
    several = len(a) > 1
    kids = [
        kid_difference(x, y, measurement.reference.features) for x, y in zip(*pure, strict=True)
    ]
    return Comparison(
        a=arms[0],
        b=arms[1],
        frechet=t_interval(differences.mean(1) if several else differences[0]),
        kid=t_interval([kid.mean for kid in kids]) if several else kids[0],
        over="training seeds" if several else "blocks of seeds",
        matched=matched(arms[0].cost, arms[1].curve),
        matched_frechet=arms[0].block_frechet[0][0],
        controls=_controls(measurement, sides[0][0], arms[0]) if controls else None,
        provenance=provenance,
    )


def compare_results(a: Result, b: Result) -> Interval:
    """A − B of the Fréchet distance over blocks of seeds, from results measured earlier.

    Raises:
        UserError: they were not measured in the same way.
    """
    a.provenance.require_same(b.provenance)
    return t_interval(np.subtract(a.block_frechet, b.block_frechet))


def matched(cost: Cost, curve: Sequence[CurvePoint]) -> Matched:
    """B's distance where B costs what A does, by straight lines over the logarithm of the cost.

    Of an empty curve, ``None`` throughout.
    """

    def at(name: str) -> float | None:
        points = sorted((getattr(point.cost, name), point.frechet) for point in curve)
        x, y = [p[0] for p in points], [p[1] for p in points]
        wanted = getattr(cost, name)
        if not points or not x[0] <= wanted <= x[-1]:
            return None
        return float(np.interp(np.log(wanted), np.log(x), y))

    return Matched(at("nfe"), at("forward_equivalents"), at("seconds"))


def _require_distinct(side: Sequence[Candidate]) -> None:
    """``UserError`` if a model is given twice: no training seed counts as two."""
    seen: dict[str, Candidate] = {}
    for candidate in side:
        other = seen.setdefault(candidate.digest, candidate)
        if other is not candidate:
            raise UserError(
                f"{other.model.path} and {candidate.model.path} are one model: give each training"
                " seed once."
            )


def _controls(measurement: Measurement, candidate: Candidate, arm: Arm) -> Controls:
    """Can this n tell A from A, and A from a blurred A?"""
    n = measurement.settings.num_samples
    again, blurred = candidate.features(n, n, degraded=True).chunk(2, 1)
    other = measurement.block_distances(again)
    return Controls(
        same=t_interval(np.subtract(arm.block_frechet[0], other)),
        degraded=t_interval(np.subtract(measurement.block_distances(blurred), other)),
        degradation=DEGRADATION,
        floor=measurement.floor(candidate.features(0, n)),
    )
