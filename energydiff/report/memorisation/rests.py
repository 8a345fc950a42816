"""Where exemplars come to rest against the noise at which they are let down."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from energydiff.report.memorisation.rows import (
    PHASES,
    Record,
    main_runs,
    plain_log,
    shades,
    sizes,
)
from energydiff.report.style import QUIET, figure


def was_scanned(record: Record) -> bool:
    """Whether exemplars were let down at several noise levels."""
    return any(run.get("rests") for run in main_runs(record))


def rested(record: Record, phase: str, size: int | None = None) -> Mapping[str, Any] | None:
    """Of a phase, over seeds and of one size or of all: ``count`` of exemplars and, at each of
    ``sigma``, how many came to rest at ``home``, a training image, or were ``spurious``, elsewhere;
    ``None`` where there is no exemplar."""
    runs = [run["rests"] for run in main_runs(record, size) if run.get("rests")]
    rows = [one["phases"][phase] for one in runs if phase in one["phases"]]
    if not rows:
        return None
    return {
        "sigma": runs[0]["sigma"],
        "count": sum(row["count"] for row in rows),
        "home": np.sum([row["home"] for row in rows], 0),
        "spurious": np.sum([row["spurious"] for row in rows], 0),
    }


def rests_plot(record: Record, path: str | Path) -> None:
    """Share of exemplars of each phase that rest at a training image, a line for each K."""
    shown = sizes(record)
    with figure(path, 9.6, 3.6) as drawing:
        panels = drawing.subplots(1, len(PHASES), sharey=True)
        for axes, phase in zip(panels, PHASES, strict=True):
            for size, colour in zip(shown, shades(len(shown)), strict=True):
                found = rested(record, phase, size)
                if found is not None:
                    share = found["home"] / found["count"]
                    axes.plot(found["sigma"], share, color=colour, lw=1.6, marker="o", ms=3)
            axes.axvline(record["sigma"], color=QUIET, lw=0.8, ls=":")
            axes.set(xscale="log", xlabel="noise σ", ylim=(-0.02, 1.05))
            axes.set_title(phase)
            plain_log(axes.xaxis)
        panels[0].set_ylabel("share at a training image")
        lines = [Line2D([], [], color=colour, lw=2) for colour in shades(len(shown))]
        labels = [f"K = {size:,}" for size in shown]
        drawing.legend(lines, labels, loc="outside lower center", ncols=min(8, len(shown)))
