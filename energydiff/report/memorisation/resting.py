"""Where exemplars come to rest, counted over a study."""

from dataclasses import dataclass
from typing import Any

from energydiff.report.memorisation.rows import PHASES, Record, main_runs, sizes


@dataclass(frozen=True)
class Resting:
    """Of one phase, over all runs or those of one size.

    Attributes:
        exemplars: samples that were let down.
        converged: of these, to a critical point.
        minima: certified ones.
        elsewhere: minima that are further than δ_m from every training image.
        residual: largest ‖∇V‖ of a critical point, ``None`` where there is none.
        margin: least |eigenvalue| of ∇²V at a certified minimum.
    """

    exemplars: int
    converged: int
    minima: int
    elsewhere: int
    residual: float | None
    margin: float | None


@dataclass(frozen=True)
class OfData:
    """Minima of the exact energy of the training sets of one size, summed over seeds.

    Attributes:
        size: K.
        images: training images, each once.
        alone: with a minimum to themselves.
        spurious: minima that several training images share or that none leads to.
        minima: all.
    """

    size: int
    images: int
    alone: int
    spurious: int
    minima: int


def resting(record: Record, size: int | None = None) -> dict[str, Resting]:
    """By phase; phases of no exemplar are left out."""
    runs = [run for run in main_runs(record, size) if run.get("minima")]
    found = {}
    for phase in PHASES:
        rows = [
            (run["states"][phase], run["minima"][phase]) for run in runs if phase in run["minima"]
        ]
        if rows:
            found[phase] = _pooled(rows)
    return found


def _pooled(rows: list[tuple[dict[str, Any], dict[str, Any]]]) -> Resting:
    minima = [found for _, found in rows]
    certified = [
        margin
        for found in minima
        for margin, index, trusted in zip(
            found["margin"], found["index"], found["trusted"], strict=True
        )
        if index == 0 and trusted
    ]
    return Resting(
        sum(states["count"] for states, _ in rows),
        sum(found["found"] for found in minima),
        sum(found["minima"] for found in minima),
        sum(found["spurious_minima"] for found in minima),
        max((value for found in minima for value in found["grad_norm"]), default=None),
        min(certified, default=None),
    )


def of_data(record: Record) -> list[OfData]:
    """Of every size that was measured."""
    found = []
    for size in sizes(record):
        runs = [run for run in main_runs(record, size) if run.get("of_data")]
        if runs:
            sums = [sum(run["of_data"][kind] for run in runs) for kind in _KINDS]
            found.append(OfData(size, sum(run["distinct"] for run in runs), *sums))
    return found


_KINDS = ("alone", "spurious", "minima")
