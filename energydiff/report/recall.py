"""Recall of associative memories against their load."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.ticker import FuncFormatter

from energydiff.report.style import INK, PALETTE, figure

MARKERS = "os^vDPX*"


def recall_plot(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    theory: Mapping[str, float | None],
    path: str | Path,
) -> None:
    """The share of patterns recalled against patterns per neuron, one curve for each memory.

    ``curves`` gives by name the points (load, share); a tick at the top marks the load that theory
    allows, where it is given. Writes ``path`` (png, svg, pdf).
    """
    colours = [*PALETTE, INK]
    with figure(path, 7.6, 3.9) as drawing:
        axes = drawing.add_subplot()
        for i, (name, points) in enumerate(curves.items()):
            look: dict[str, Any] = {
                "color": colours[i % len(colours)],
                "marker": MARKERS[i % len(MARKERS)],
            }
            loads, shares = zip(*points, strict=True)
            axes.plot(loads, shares, label=name, linewidth=1.5, markersize=4.5, alpha=0.9, **look)
            limit = theory.get(name)
            if limit is not None:
                axes.plot([limit], [1.07 + 0.04 * (i % 2)], linestyle="", markersize=7, **look)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda load, _: f"{load:g}"))
        axes.set(xlabel="load: patterns per neuron", ylabel="share of patterns recalled")
        axes.set_ylim(-0.03, 1.16)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        axes.set_title("Recall against load (above: where theory puts the end)")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
