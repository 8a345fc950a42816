"""When memorising and generalising begin while a model trains."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from energydiff.report.memorisation.rows import (
    Record,
    Values,
    main_runs,
    means,
    plain_log,
    real,
    shades,
    size_axis,
    sizes,
)
from energydiff.report.style import PALETTE, QUIET, figure

SEEN = "images seen"
WATCHED = {
    "memorised": "memorised share",
    "held_out_loss": "loss of held-out images",
    "train_loss": "loss of training images",
}
KINDS = {"memorising": PALETTE[0], "generalising": PALETTE[2]}


def was_watched(record: Record) -> bool:
    """Whether runs looked at themselves while they trained."""
    return any(run["watched"].get("images") for run in main_runs(record))


def times_plot(record: Record, path: str | Path) -> None:
    """Memorised share and both losses against images seen, a line for each K, means of seeds; and
    when memorising and generalising begin against K, of every seed, with the proportional fit."""
    shown = sizes(record)
    with figure(path, 9.6, 7.0) as drawing:
        panels = drawing.subplots(2, 2)
        panels[1, 1].sharey(panels[1, 0])
        drawing.get_layout_engine().set(hspace=0.06)  # type: ignore[union-attr, call-arg]
        places = panels[0, 0], panels[1, 0], panels[1, 1]
        for axes, (name, title) in zip(places, WATCHED.items(), strict=True):
            for size, colour in zip(shown, shades(len(shown)), strict=True):
                images, values = _series(record, size, name)
                axes.plot(images, values, color=colour, lw=1.6, marker="o", ms=2.5)
            axes.set(xscale="log", xlabel=SEEN)
            axes.set_title(title)
            plain_log(axes.xaxis)
        panels[0, 0].axhline(record["times"]["share"], color=QUIET, lw=0.8, ls=":")
        panels[0, 0].set_ylim(-0.02, 1.02)
        for axes in places[1:]:
            axes.set_yscale("log")
            plain_log(axes.yaxis)
        _growth(panels[0, 1], record["times"], shown)
        lines = [Line2D([], [], color=colour, lw=2) for colour in shades(len(shown))]
        labels = [f"K = {size:,}" for size in shown]
        drawing.legend(lines, labels, loc="outside lower center", ncols=min(8, len(shown)))


def _series(record: Record, size: int, name: str) -> tuple[list[float], Values]:
    """Where all seeds of a size were looked at, and the mean of what was seen there."""
    seen = [
        dict(zip(run["watched"]["images"], run["watched"][name], strict=True))
        for run in main_runs(record, size)
        if run["watched"].get("images")
    ]
    if not seen:
        return [], real([])
    images = sorted(set(seen[0]).intersection(*seen))
    return images, means([[one[at] for at in images] for one in seen])


def _growth(axes: Axes, times: Mapping[str, Any], shown: list[int]) -> None:
    for name, colour in KINDS.items():
        rows = [row for row in times["runs"] if row[name] is not None]
        label = f"{name} begins" if name == "memorising" else "held-out loss near its least"
        axes.plot(
            [row["images"] for row in rows], [row[name] for row in rows],
            ls="", marker="o", ms=4, alpha=0.75, color=colour, label=label,
        )  # fmt: skip
    fit = times["fits"]["memorising"]
    if fit:
        x = np.array([min(fit["sizes"]), max(fit["sizes"])])
        r2 = "" if fit["r2"] is None else f", $R^2$ = {fit['r2']:.2f}"
        label = f"τ = {fit['rate']:.3g} K{r2}"
        axes.plot(x, fit["rate"] * x, color=KINDS["memorising"], lw=1.2, label=label)
    axes.set(yscale="log", ylabel=SEEN)
    plain_log(axes.yaxis)
    axes.set_title("when it begins")
    size_axis(axes, shown)
    axes.legend(fontsize=8)
