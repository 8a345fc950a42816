"""What the figures and the page of a study have in common: its rows by size, colours, an axis."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from energydiff.report.style import PALETTE, QUIET

Record = Mapping[str, Any]
Values = NDArray[np.float64]

PHASES = {"memorised": PALETTE[0], "spurious": PALETTE[1], "generalised": PALETTE[2]}
CLASSES = PHASES | {"held_out": QUIET, "train": PALETTE[6]}
NAMES = {"held_out": "held-out", "train": "training"}
SIZE = "training images K"
LABELS = 7  # of an axis over K, at most


def name(kind: str) -> str:
    """What a class is called."""
    return NAMES.get(kind, kind)


def sizes(record: Record) -> list[int]:
    """Numbers of training images, rising."""
    return sorted(set(record["design"]["sizes"]))


def main_runs(record: Record, size: int | None = None) -> list[Mapping[str, Any]]:
    """The runs whose shares are counted, those on halves left out; of one size or of all."""
    count = len(sizes(record)) * len(record["design"]["seeds"])
    return [run for run in record["runs"][:count] if size in (None, run["images"])]


def first_runs(record: Record) -> list[Mapping[str, Any]]:
    """The runs of the first seed, the smallest first."""
    seed = record["design"]["seeds"][0]
    return [run for run in main_runs(record) if run["seed"] == seed]


def has_energies(record: Record) -> bool:
    """Whether states were measured, which only an energy has."""
    return any(run.get("states") for run in main_runs(record))


def real(values: Any) -> Values:
    """Numbers of a record as an array, NaN where it has none."""
    return np.asarray(values, float)


def means(rows: Iterable[Sequence[float | None]]) -> Values:
    """Of several series at the same places, without what is missing; NaN where all is."""
    table = real(list(rows))
    known = np.isfinite(table)
    total = np.where(known, table, 0).sum(0)
    return np.divide(total, known.sum(0), out=np.full(total.shape, np.nan), where=known.any(0))


def shades(count: int) -> list[str]:
    """Colours of one sequence, from dark to light, none too light for a thin line."""
    return [to_hex(colour) for colour in colormaps["viridis"](np.linspace(0, 0.88, count))]


def plain_log(axis: Axis) -> None:
    """A logarithmic axis with plain numbers, that is drawn on already: decades, and where these are
    few 2 and 5 of each."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 50 * low else (1,)))
    axis.set_major_formatter("{x:,g}")
    axis.set_minor_formatter(NullFormatter())


def size_axis(axes: Axes, shown: Sequence[int], label: str | None = SIZE) -> None:
    """Sizes along a logarithmic x; numbers that would run into each other are left out."""
    low, high = math.log(min(shown)), math.log(max(shown))
    step, labelled = (high - low) / LABELS, [max(shown)]
    for size in sorted(shown)[-2::-1]:
        if math.log(labelled[-1] / size) >= step:
            labelled.append(size)
    axes.set_xscale("log")
    axes.set_xticks(labelled, [f"{size:,}" for size in labelled])
    axes.xaxis.set_minor_locator(NullLocator())
    margin = 0.04 * (high - low) or 0.7
    axes.set_xlim(math.exp(low - margin), math.exp(high + margin))
    if label:
        axes.set_xlabel(label)
