"""What became of spurious minima as the training set grew."""

from collections import Counter
from pathlib import Path
from typing import Any

from matplotlib.patches import Patch

from energydiff.report.memorisation.rows import Record
from energydiff.report.style import INK, PALETTE, figure

FATES = {
    "persists": PALETTE[1],
    "split": PALETTE[4],
    "valley": PALETTE[5],
    "memory": PALETTE[0],
    "gone": "#C8C8C8",
}
TOLD = {
    "persists": "persists",
    "split": "splits",
    "valley": "becomes a valley",
    "memory": "becomes a memory",
    "gone": "is gone",
}


_ON = {"persists": "white", "memory": "white"}  # colours of counts on dark bars
_MIDDLE: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 9}


def counted(record: Record) -> dict[tuple[int, int], Counter[str]]:
    """Of every step to more images how many minima met which fate, over all seeds; steps of none
    are left out."""
    found: dict[tuple[int, int], Counter[str]] = {}
    for step in record["fates"]:
        found.setdefault((step["from"], step["to"]), Counter()).update(step["fates"])
    return {step: counts for step, counts in sorted(found.items()) if counts.total()}


def fates_plot(record: Record, path: str | Path) -> None:
    """Stacked shares of fates for every step from K to K′, with counts."""
    steps = counted(record)
    with figure(path, max(5.0, 1.15 * len(steps) + 2.6), 3.8) as drawing:
        axes = drawing.subplots()
        for place, counts in enumerate(steps.values()):
            below, total = 0.0, counts.total()
            for fate, colour in FATES.items():
                share = counts[fate] / total
                axes.bar(place, share, 0.72, below, color=colour, edgecolor="white", lw=0.8)
                if share > 0.05:
                    middle = below + share / 2
                    axes.text(place, middle, f"{counts[fate]}", color=_ON.get(fate, INK), **_MIDDLE)
                below += share
            axes.text(place, 1.02, f"{total}", ha="center", va="bottom", fontsize=9)
        axes.set_xticks(range(len(steps)), [f"{a:,} → {b:,}" for a, b in steps], fontsize=9)
        axes.set(ylim=(0, 1.08), ylabel="share of spurious minima", xlabel="training images")
        axes.tick_params(axis="x", length=0)
        handles = [Patch(color=colour) for colour in FATES.values()]
        drawing.legend(handles, [*TOLD.values()], loc="outside right center", reverse=True)
