"""Memorised, spurious and generalised against the number of training images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from energydiff.report.memorisation.rows import PHASES, Record, real, size_axis, sizes
from energydiff.report.style import INK, figure

ACROSS = 3  # panels side by side


def shares_plot(record: Record, path: str | Path) -> None:
    """A panel for each space: mean over seeds with its 95 % interval, dashed the held-out images
    under the same rule, dotted K_c where the memorised share crosses half."""
    spaces = record["summary"]
    columns = min(ACROSS, len(spaces))
    rows = -(-len(spaces) // columns)
    with figure(path, 4.4 * columns + 0.4, 3.3 * rows + 0.5) as drawing:
        panels = drawing.subplots(rows, columns, squeeze=False, sharey=True).flatten()
        for axes in panels[len(spaces) :]:
            axes.set_visible(False)
        for axes, (space, found) in zip(panels, spaces.items(), strict=False):
            _draw(axes, found)
            size_axis(axes, sizes(record))
            axes.set_title(_title(space, found["crossing"]["mean"]["mean"]))
        panels[0].set_ylabel("share of samples")
        lines = [Line2D([], [], color=colour, marker="o", ms=4) for colour in PHASES.values()]
        lines.append(Line2D([], [], color=INK, lw=1, ls="--"))
        labels = [*PHASES, "held-out images, same rule"]
        drawing.legend(lines, labels, loc="outside lower center", ncols=4 if columns > 1 else 2)


def _draw(axes: Axes, found: Mapping[str, Any]) -> None:
    rows = found["shares"]
    x = [row["images"] for row in rows]
    for phase, colour in PHASES.items():
        samples, control = (
            {side: real([row[kind][phase][side] for row in rows]) for side in _SIDES}
            for kind in ("samples", "held_out")
        )
        low, high = samples["low"].clip(0, 1), samples["high"].clip(0, 1)
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(x, samples["mean"], color=colour, marker="o", ms=4, lw=2, clip_on=False)
        axes.plot(x, control["mean"], color=colour, lw=1, ls="--")
    axes.set_ylim(-0.02, 1.02)
    crossing = found["crossing"]["mean"]
    if crossing["mean"] is None:
        return
    axes.axvline(crossing["mean"], color=INK, lw=1, ls=":")
    if crossing["low"] is not None:
        axes.axvspan(crossing["low"], crossing["high"], color=INK, alpha=0.06, linewidth=0)


def _title(space: str, crossing: float | None) -> str:
    where = space if space == "pixels" else f"features of {space}"
    return where if crossing is None else f"{where}: $K_c$ = {crossing:.3g} (dotted)"


_SIDES = ("mean", "low", "high")
