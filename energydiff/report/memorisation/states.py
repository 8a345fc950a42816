"""What the energy says of each class: how low, how steep, how curved, how wide, how many
directions."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from energydiff.report.memorisation.rows import (
    CLASSES,
    Record,
    Values,
    main_runs,
    name,
    real,
    size_axis,
    sizes,
)
from energydiff.report.style import INK, QUIET, figure

States = Mapping[str, Any]
QUARTILES = 0.25, 0.5, 0.75


def states_plot(record: Record, path: str | Path) -> None:
    """Against K medians of exemplars and seeds with quartile bars: V at the study's σ, dashed that
    of the training set itself, slope, ends of the spectrum of ∇²V and critical noise; against σ
    local dimensions at a small, a middle and a large K."""
    sigma, shown = record["sigma"], sizes(record)
    spread = sorted({shown[0], shown[len(shown) // 2], shown[-1]})
    with figure(path, 13.2, 6.4) as drawing:
        panels = drawing.subplots(2, 4)
        drawing.get_layout_engine().set(hspace=0.06)  # type: ignore[union-attr, call-arg]
        for axes, (title, measured) in zip(panels.flatten(), _AGAINST_SIZE.items(), strict=False):
            _against_size(axes, record, measured)
            axes.set_title(title)
        _dashed(panels[0, 0], record)
        for axes, end in ((panels[0, 2], 0), (panels[0, 3], 1)):
            axes.axhline(end, color=QUIET, lw=0.6, zorder=0)
        _critical_axis(panels[1, 0], record)
        dimensions = panels[1, 1 : 1 + len(spread)]
        for axes in dimensions[1:]:
            axes.sharey(dimensions[0])
        for axes, size in zip(dimensions, spread, strict=True):
            _dimensions(axes, record, size)
        for axes in panels[1, 1 + len(spread) :]:
            axes.set_visible(False)
        lines = [Line2D([], [], color=c, marker="o", ms=4) for c in CLASSES.values()]
        labels = [name(kind) for kind in CLASSES]
        lines.append(Line2D([], [], color=INK, ls="--", lw=1))
        labels.append("V of the training set itself")
        drawing.legend(lines, labels, loc="outside lower center", ncols=6)
        drawing.suptitle(f"States at σ = {sigma:.3g}: medians and quartiles", fontsize=12)


def _against_size(axes: Axes, record: Record, measured: Callable[[States], Values]) -> None:
    shown = sizes(record)
    for place, (kind, colour) in enumerate(CLASSES.items()):
        low, middle, high = _quartiles(record, kind, measured)
        # Side by side about K, or bars would cover each other.
        x = real(shown) * (max(shown) / min(shown)) ** (0.008 * (place - 2))
        axes.errorbar(
            x, middle, (middle - low, high - middle), color=colour, marker="o", ms=3, lw=1.4,
            elinewidth=0.9,
        )  # fmt: skip
    size_axis(axes, shown)


def _dashed(axes: Axes, record: Record) -> None:
    for kind, colour in CLASSES.items():
        middle = _quartiles(record, kind, lambda states: real(states["V_of_data"]))[1]
        axes.plot(sizes(record), middle, color=colour, ls="--", lw=1, marker="_", ms=5)


def _quartiles(record: Record, kind: str, measured: Callable[[States], Values]) -> Values:
    """(3, sizes), NaN where a class has no exemplars."""
    found = []
    for size in sizes(record):
        runs = [run.get("states", {}).get(kind) for run in main_runs(record, size)]
        values = np.concatenate([real([]), *(measured(states) for states in runs if states)])
        values = values[np.isfinite(values)]
        found.append(np.quantile(values, QUARTILES) if len(values) else np.full(3, np.nan))
    return np.stack(found, 1)


def _critical_axis(axes: Axes, record: Record) -> None:
    """Levels as ticks, 0, where none was found again from the lowest, below them."""
    levels = _levels(main_runs(record))
    axes.set_yscale("symlog", linthresh=levels[0], linscale=0.4)
    axes.set_ylim(-0.3 * levels[0], 1.3 * levels[-1])
    axes.set_yticks([0, *levels], ["none", *(f"{level:.2g}" for level in levels)])
    axes.yaxis.set_minor_locator(NullLocator())


def _levels(runs: Sequence[Mapping[str, Any]]) -> list[float]:
    return next(run["levels"] for run in runs if run.get("levels"))


def _dimensions(axes: Axes, record: Record, size: int) -> None:
    runs = [run for run in main_runs(record, size) if run.get("states")]
    for kind, colour in CLASSES.items():
        rows = [
            real(run["states"][kind]["local_dimension"]) for run in runs if kind in run["states"]
        ]
        if rows:
            middle = np.nanmedian(np.concatenate(rows, 1), 1)
            axes.plot(_levels(runs), middle, color=colour, marker="o", ms=3, lw=1.4)
    axes.axhline(0, color=QUIET, lw=0.6)
    axes.set(xscale="log", xlabel="noise σ")
    axes.set_yscale("symlog", linthresh=10)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_title(f"local dimension, K = {size:,}")


_AGAINST_SIZE: dict[str, Callable[[States], Values]] = {
    "V": lambda states: real(states["V"]),
    "slope ‖∇V‖/√d": lambda states: real(states["slope"]),
    "lowest eigenvalue of ∇²V": lambda states: real([row[0] for row in states["eigenvalues"]]),
    "highest eigenvalue of ∇²V": lambda states: real([row[-1] for row in states["eigenvalues"]]),
    "critical noise (9 of 10 found again)": lambda states: real(states["critical_noise"]),
}
