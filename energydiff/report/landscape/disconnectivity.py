"""The disconnectivity graph (Becker & Karplus 1997): how high V must rise for minima to become one.

V goes upwards. Every line begins at a minimum and goes straight up to the lowest level at which
some path leads to a lower minimum without rising further: its length is that minimum's barrier.
"""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.offsetbox import AnnotationBbox

from energydiff.data import Normalization
from energydiff.errors import UserError
from energydiff.landscape.morse import MorseGraph
from energydiff.report.landscape.marks import Pixels, colour, pixels, small_picture
from energydiff.report.landscape.tree import Tree, tree
from energydiff.report.style import INK, QUIET, figure

LEAVES, HEIGHT = 60, 5.6
ONE_ROW = 24  # of images, up to so many leaves; more stand in two rows


def disconnectivity_plot(
    graph: MorseGraph,
    path: str | Path,
    normalization: Normalization | None = None,
    leaves: int = LEAVES,
) -> None:
    """Draw how the minima of a landscape merge; parts that no saddle joins end at a dashed line.

    Args:
        path: written, png, svg or pdf.
        normalization: of the minima, where they are images (1 or 3, H, W) and are to be shown.
        leaves: of more minima, those with the highest barriers are drawn.

    Raises:
        UserError: there is no minimum, or path is no picture.
    """
    if not len(graph.minima):
        raise UserError("there is no minimum to draw a disconnectivity graph of.")
    drawn = tree(graph, leaves)
    pictures = None if normalization is None else pixels(graph.minima.x, normalization)
    pitch = 0.225 if pictures is None or len(drawn.places) > ONE_ROW else 0.42
    width = max(6.4, min(14.0, 0.9 + pitch * (max(drawn.places.values()) + 1)))
    with figure(path, width, HEIGHT) as drawing:
        axes = drawing.add_subplot()
        draw_tree(axes, graph, drawn)
        if pictures is not None:
            _hang(axes, graph, drawn, pictures, (width, HEIGHT))
        axes.set_title(caption(graph, drawn))


def draw_tree(axes: Axes, graph: MorseGraph, drawn: Tree) -> None:
    """Branches (gid ``branches``), joints (``joints``) and minima (``minima``) on given axes."""
    value = graph.minima.free_energy.numpy()
    place, ends = drawn.places, drawn.tops(value.tolist())
    lowest, top = float(value[list(place)].min()), ends[drawn.roots[0]]
    upright = [[(place[m], value[m]), (place[m], ends[m])] for m in place]
    across = [[(place[m], merge.level) for m in merge.groups] for merge in drawn.merges]
    widths = [1.7 if m in drawn.roots else 1.0 for m in place] + [1.0] * len(across)
    lines = LineCollection(upright + across, linewidths=widths, colors=INK, capstyle="round")
    lines.set_gid("branches")
    axes.add_collection(lines)
    axes.scatter(
        [place[merge.groups[0]] for merge in drawn.merges],
        [merge.level for merge in drawn.merges],
        s=7,
        color=INK,
        linewidths=0,
        zorder=3,
        gid="joints",
    )
    axes.scatter(
        list(place.values()),
        value[list(place)],
        s=20,
        color=colour(0),
        edgecolors="white",
        linewidths=0.6,
        zorder=4,
        gid="minima",
    )
    if len(drawn.roots) > 1:
        axes.axhline(top, color=QUIET, linestyle=(0, (4, 3)), linewidth=1, gid="not joined")
    axes.set(
        xlim=(-0.8, max(place.values()) + 0.8),
        ylim=(lowest - 0.06 * (top - lowest), top + 0.01 * (top - lowest)),
        xticks=[],
        ylabel=f"free energy V(x, σ = {float(graph.minima.sigma[0]):g})",
    )
    axes.spines["bottom"].set_visible(False)


def caption(graph: MorseGraph, drawn: Tree) -> str:
    """What is drawn, in words."""
    minima, parts = len(graph.minima), len(graph.components())
    shown = len(drawn.places)
    words = f"{minima:,} minima" if minima > 1 else "1 minimum"
    if shown < minima:
        words = f"the {shown:,} of {words} with the highest barriers"
    words += f" and {len(graph.saddles):,} index-1 saddle{'s' * (len(graph.saddles) != 1)} of V"
    if parts > 1:
        words += f", in {parts:,} parts that no saddle found joins"
    return words[0].upper() + words[1:]


def _hang(
    axes: Axes, graph: MorseGraph, drawn: Tree, pictures: Pixels, size: tuple[float, float]
) -> None:
    """Images of all minima below the tree, in one row or two, thinly joined.

    ``size``: of the figure, inches.
    """
    value, bottom = graph.minima.free_energy, axes.get_ylim()[0]
    rows = 1 if len(drawn.places) <= ONE_ROW else 2
    left, right = axes.get_xlim()
    edge = min(0.55, 0.9 * rows * (size[0] - 0.8) / (right - left))  # inches
    inches = size[1] - 1.4 - rows * edge
    drop = [(0.06 + row * (edge + 0.05)) / inches for row in range(rows)]  # parts of the axes
    under = axes.get_xaxis_transform()
    for number, (minimum, place) in enumerate(sorted(drawn.places.items(), key=lambda p: p[1])):
        row = number % rows
        line: dict[str, Any] = {"color": QUIET, "linewidth": 0.5, "alpha": 0.6, "zorder": 1}
        axes.plot([place, place], [float(value[minimum]), bottom], **line)
        axes.plot([place, place], [0, -drop[row]], **line, transform=under, clip_on=False)
        box = AnnotationBbox(
            small_picture(pictures[minimum], edge),
            (place, -drop[row]),
            xycoords=under,
            box_alignment=(0.5, 1),
            frameon=False,
            pad=0,
            annotation_clip=False,
        )
        box.set_gid(f"minimum-{minimum}")
        axes.add_artist(box)
