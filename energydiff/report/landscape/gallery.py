"""Critical points that are images: minima with their V, and saddles between their two minima."""

import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from energydiff.data import Normalization
from energydiff.errors import UserError
from energydiff.landscape.critical import CriticalPoints
from energydiff.landscape.morse import MorseGraph
from energydiff.report.landscape.marks import Pixels, colour, pixels
from energydiff.report.style import bare, figure

MOST = 60, 24  # minima, saddles
COLUMNS = 12, 3


def minima_gallery(
    minima: CriticalPoints, normalization: Normalization, path: str | Path, most: int = MOST[0]
) -> None:
    """The ``most`` minima of lowest V, row by row from the lowest, with V below each.

    Raises:
        UserError: there are none, they are not images, or path is no picture.
    """
    if not len(minima):
        raise UserError("there is no minimum to show.")
    shown = minima[minima.free_energy.argsort()[:most]]
    images = pixels(shown.x, normalization)
    columns = min(COLUMNS[0], len(shown))
    rows = math.ceil(len(shown) / columns)
    ratio = images.shape[1] / images.shape[2]
    width = max(3.6, 0.95 * columns)
    with figure(path, width, 0.5 + (0.85 * ratio + 0.25) * rows) as drawing:
        panels = drawing.subplots(rows, columns, squeeze=False).flatten()
        for axes in panels[len(shown) :]:
            axes.set_visible(False)
        for axes, image, value in zip(panels, images, shown.free_energy.tolist(), strict=False):
            _show(axes, image, frame=colour(0))
            axes.set_xlabel(f"{value:#.3g}", fontsize=8, labelpad=2)
        count = f"{len(shown)} of {len(minima)}" if len(shown) < len(minima) else f"{len(minima)}"
        sigma = float(minima.sigma[0])
        drawing.suptitle(f"{count} minima of V(·, σ = {sigma:g}), with V", fontsize=11)


def saddle_gallery(
    graph: MorseGraph, normalization: Normalization, path: str | Path, most: int = MOST[1]
) -> None:
    """The saddles at which minima merge, each between its two minima, highest barriers first.

    Beside the arrows stand the barriers: V of the saddle over that of either minimum.

    Raises:
        UserError: no saddle joins two minima, they are not images, or path is no picture.
    """
    barriers, value = graph.barriers, graph.minima.free_energy
    joining = [merge.saddle for merge in graph.merges()]
    if not joining:
        raise UserError("no saddle joins two minima: there is none to show between them.")
    shown = sorted(joining, key=lambda saddle: -float(barriers[saddle].min()))[:most]
    minima, saddles = pixels(graph.minima.x, normalization), pixels(graph.saddles.x, normalization)
    columns = min(COLUMNS[1], len(shown))
    rows = math.ceil(len(shown) / columns)
    ratio = minima.shape[1] / minima.shape[2]
    with figure(path, 4.1 * columns, 0.5 + (0.85 * ratio + 0.15) * rows) as drawing:
        widths = [1, 1, 1, 0.35] * columns  # the last is the gap to the next
        panels = drawing.subplots(rows, 4 * columns, squeeze=False, width_ratios=widths)
        panels = panels.reshape(rows * columns, 4)
        for axes in [*panels[: len(shown), 3], *panels[len(shown) :].flatten()]:
            axes.set_visible(False)
        for (left, middle, right, _), saddle in zip(panels, shown, strict=False):
            order = sorted((0, 1), key=lambda e: float(value[graph.ends[saddle, e]]))
            first, second = graph.ends[saddle, order].tolist()
            _show(left, minima[first], frame=colour(0))
            _show(middle, saddles[saddle], frame=colour(1))
            _show(right, minima[second], frame=colour(0))
            up, down = barriers[saddle, order].tolist()
            _arrow(middle, -0.32, f"{up:.2g}", "→")
            _arrow(middle, 1.32, f"{down:.2g}", "←")
        count = f"{len(shown)} of {len(joining)}" if len(shown) < len(joining) else f"{len(shown)}"
        drawing.suptitle(
            f"{count} saddles at which minima of V(·, σ = {float(graph.minima.sigma[0]):g}) merge,"
            " and the barriers from either side, the highest first",
            fontsize=11,
        )
        drawing.get_layout_engine().set(wspace=0.12)  # type: ignore[union-attr, call-arg]


def _show(axes: Axes, image: Pixels, frame: str) -> None:
    axes.imshow(np.broadcast_to(image, (*image.shape[:2], 3)), interpolation="nearest")
    bare(axes, frame=frame, width=1.5)


def _arrow(axes: Axes, across: float, barrier: str, arrow: str) -> None:
    """The barrier above an arrow to the saddle, in the gap beside it."""
    for height, text, size in ((0.62, barrier, 8), (0.38, arrow, 12)):
        axes.text(
            across, height, text, transform=axes.transAxes, ha="center", va="center", fontsize=size
        )
