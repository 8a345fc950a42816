"""Bifurcation diagrams: critical points over a parameter, and where their number or index changes.

Solid lines are minima, dashed ones unstable; colours are those of the indices.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from energydiff.errors import UserError
from energydiff.report.landscape.marks import colour, kind
from energydiff.report.style import ALARM, INK, figure

Array = NDArray[np.float64]
MARKS = {
    "fold": "s",
    "pitchfork": "o",
    "transcritical": "D",
    "branch point": "P",
    "connection": "*",
}


@dataclass(frozen=True)
class Line:
    """One branch of critical points: parameter (m,), height (m,) and Morse index (m,)."""

    parameter: Array
    height: Array
    index: NDArray[np.int64]


@dataclass(frozen=True)
class Mark:
    """An event of a ``kind`` of ``MARKS``, where it is drawn."""

    kind: str
    parameter: float
    height: float


def bifurcation_plot(
    lines: Sequence[Line],
    marks: Sequence[Mark],
    path: str | Path,
    *,
    dim: int,
    label: str,
    parameter: str = "noise level σ (falling)",
    falling: bool = True,
) -> None:
    """Draw branches over a parameter.

    Args:
        dim: d, by which the highest index is a maximum.
        label: of the heights.
        parameter: what stands below the axis; ``falling`` draws it from right to left, on a
            logarithmic scale.

    Raises:
        UserError: there is no branch, an event is of no known kind, or path is no picture.
    """
    if not lines:
        raise UserError("there is no branch to draw a bifurcation diagram of.")
    unknown = {mark.kind for mark in marks} - set(MARKS)
    if unknown:
        raise UserError(f"no mark for {unknown.pop()!r}: events are {', '.join(MARKS)}.")
    with figure(path, 7.2, 4.6) as drawing:
        axes = drawing.add_subplot()
        draw_branches(axes, lines)
        draw_events(axes, marks)
        if falling:
            axes.set_xscale("log")
            axes.invert_xaxis()
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter("{x:g}")
            axes.tick_params(which="minor", labelsize=8)
        axes.set(xlabel=parameter, ylabel=label, title=_caption(lines, marks))
        axes.legend(
            handles=_key(lines, marks, dim), loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9
        )


def draw_branches(axes: Axes, lines: Sequence[Line]) -> None:
    """Every branch, in a piece (gid ``index-k``) for each run of one index."""
    for line in lines:
        cuts = np.flatnonzero(np.diff(line.index)) + 1
        for start, end in pairwise([0, *cuts.tolist(), len(line.index)]):
            index, rows = int(line.index[start]), slice(start, end + 1)  # to where the next begins
            axes.plot(
                line.parameter[rows],
                line.height[rows],
                color=colour(index),
                linestyle="-" if index == 0 else (0, (4, 2)),
                linewidth=1.8 if index == 0 else 1.3,
                zorder=3 - min(index, 2),
                gid=f"index-{index}",
            )


def draw_events(axes: Axes, marks: Sequence[Mark]) -> None:
    """A collection for each kind of event, of that gid."""
    for name in MARKS:
        found = [mark for mark in marks if mark.kind == name]
        if found:
            axes.scatter(
                [mark.parameter for mark in found],
                [mark.height for mark in found],
                marker=MARKS[name],
                s=70 if name == "connection" else 30,
                color=ALARM if name == "connection" else INK,
                edgecolors="white",
                linewidths=0.6,
                zorder=5,
                gid=name,
            )


def principal_axis(x: Array) -> Array:
    """Unit vector (d,) of the greatest spread of states x (n, d): heights are x @ this."""
    axis: Array = np.linalg.svd(x - x.mean(0), full_matrices=False)[2][0]
    return axis * np.sign(axis[np.abs(axis).argmax()])


def _caption(lines: Sequence[Line], marks: Sequence[Mark]) -> str:
    words = [f"{len(lines)} branch{'es' * (len(lines) > 1)}"]
    for name in MARKS:
        count = sum(mark.kind == name for mark in marks)
        if count:
            words.append(f"{count} {name}{'s' * (count > 1)}")
    return ", ".join(words)


def _key(lines: Sequence[Line], marks: Sequence[Mark], dim: int) -> list[Line2D]:
    indices = sorted({int(index) for line in lines for index in np.unique(line.index)})
    key = [
        Line2D([], [], color=colour(i), linestyle="-" if i == 0 else "--", label=kind(i, dim))
        for i in indices
    ]
    return key + [
        Line2D(
            [],
            [],
            marker=MARKS[name],
            color=ALARM if name == "connection" else INK,
            linestyle="none",
            markersize=10 if name == "connection" else 5.5,
            markeredgecolor="white",
            label=name,
        )
        for name in MARKS
        if any(mark.kind == name for mark in marks)
    ]
