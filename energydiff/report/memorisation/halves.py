"""Two models of disjoint halves beside each other, as the halves grow."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from energydiff.report.memorisation.rows import Record, real, shades, size_axis
from energydiff.report.style import PALETTE, QUIET, figure


def halves_plot(record: Record, path: str | Path) -> None:
    """Against K: how far denoisers are apart, and energies where there are, a line for each σ; and
    the cosine between samples from the same noise, dashed that from different noise."""
    rows = record["halves"]
    shown = [row["images"] for row in rows]
    kinds = {"denoisers": "difference of denoisers, of their error"}
    if np.isfinite(real([row["energies"] for row in rows])).any():
        kinds["energies"] = "difference of energies, of their spread"
    with figure(path, 3.9 * (len(kinds) + 1) + 0.8, 3.7) as drawing:
        panels = drawing.subplots(1, len(kinds) + 1)
        for axes, (kind, title) in zip(panels, kinds.items(), strict=False):
            values, levels = real([row[kind] for row in rows]), rows[0]["sigma"]
            for column, colour in enumerate(shades(len(levels))):
                label = f"σ = {levels[column]:.2g}"
                axes.plot(shown, values[:, column], color=colour, marker="o", ms=3.5, label=label)
            axes.set_ylim(0)
            _finish(axes, title, shown)
        _cosines(panels[-1], record)
        drawing.legend(
            *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=7, fontsize=9
        )


def _cosines(axes: Axes, record: Record) -> None:
    shown = [row["images"] for row in record["halves"]]
    for kind, noise, colour, dashes in (
        ("samples", "from the same noise", PALETTE[1], "-"),
        ("chance", "from different noise", QUIET, "--"),
    ):
        values = real([row[kind] for row in record["halves"]])
        axes.plot(shown, values, color=colour, ls=dashes, marker="o", ms=3.5, label=noise)
    axes.set_ylim(min(0, axes.get_ylim()[0]) - 0.05, 1.02)
    _finish(axes, "cosine between samples", shown)
    axes.legend(fontsize=8.5)


def _finish(axes: Axes, title: str, shown: list[int]) -> None:
    size_axis(axes, shown)
    axes.set_title(title)
