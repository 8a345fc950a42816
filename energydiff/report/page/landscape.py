"""A landscape on the page: its disconnectivity graph, whose minima and saddles show their images.

Heights and places are those of :mod:`energydiff.report.landscape.disconnectivity`.
"""

from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go
import torch

from energydiff.data import Normalization
from energydiff.landscape.critical import CriticalPoints
from energydiff.landscape.morse import MorseGraph
from energydiff.landscape.record import open_landscape
from energydiff.report.landscape.disconnectivity import LEAVES, caption
from energydiff.report.landscape.marks import colour
from energydiff.report.landscape.tree import Tree, tree
from energydiff.report.page.figures import bare_figure
from energydiff.report.page.pictures import sample_uris
from energydiff.report.style import QUIET

POINTS = "critical_points.npz"


@dataclass(frozen=True)
class PageLandscape:
    """One disconnectivity graph.

    Attributes:
        name: of the model. ``caption``: what is drawn, in words.
        figure: its points have as ``customdata`` what is said of them and the number of their
            image.
        images: data URIs; empty where the points are no images.
    """

    name: str
    caption: str
    figure: go.Figure
    images: list[str]


def page_landscape(
    folder: Path, name: str, normalization: Normalization | None
) -> PageLandscape | None:
    """The landscape that ``energydiff landscape`` left in the folder; ``None`` without one.

    Raises:
        UserError: its files cannot be read.
    """
    if not (folder / POINTS).is_file():
        return None
    graph = open_landscape(folder).graph
    drawn = tree(graph, LEAVES)
    leaves = sorted(drawn.places, key=lambda minimum: drawn.places[minimum])
    joints = [merge.saddle for merge in drawn.merges]
    shown = CriticalPoints.join(
        [graph.minima[torch.tensor(leaves)], graph.saddles[torch.tensor(joints).long()]]
    )
    images = []
    if normalization is not None and normalization.picture_shape(tuple(shown.x.shape[1:])):
        images = sample_uris(shown.x, normalization)
    return PageLandscape(name, caption(graph, drawn), _figure(graph, drawn, leaves), images)


def _figure(graph: MorseGraph, drawn: Tree, leaves: list[int]) -> go.Figure:
    value, place, merges = graph.minima.free_energy.tolist(), drawn.places, drawn.merges
    ends = drawn.tops(value)
    x: list[float | None] = []
    y: list[float | None] = []
    for minimum in leaves:
        x += [place[minimum], place[minimum], None]
        y += [value[minimum], ends[minimum], None]
    for merge in merges:
        x += [place[merge.groups[0]], place[merge.groups[1]], None]
        y += [merge.level, merge.level, None]
    figure = bare_figure(440, "", f"V(x, σ = {float(graph.minima.sigma[0]):g})")
    figure.add_scatter(
        x=x, y=y, mode="lines", line={"color": QUIET, "width": 1.2}, hoverinfo="skip"
    )
    minima = [[i, f"minimum {m}: V = {value[m]:.4g}"] for i, m in enumerate(leaves)]
    saddles = [
        [
            len(leaves) + i,
            f"saddle {m.saddle}: V = {m.level:.4g}, minima {m.groups[0]} and {m.groups[1]} merge",
        ]
        for i, m in enumerate(merges)
    ]
    for xs, ys, said, index, size in (
        ([place[m] for m in leaves], [value[m] for m in leaves], minima, 0, 8),
        ([place[m.groups[1]] for m in merges], [m.level for m in merges], saddles, 1, 6),
    ):
        figure.add_scatter(
            x=xs,
            y=ys,
            customdata=said,
            mode="markers",
            marker={"color": colour(index), "size": size, "symbol": ("circle", "diamond")[index]},
            hovertemplate="%{customdata[1]}<extra></extra>",
        )
    if len(drawn.roots) > 1:
        figure.add_hline(ends[drawn.roots[0]], line={"color": QUIET, "dash": "dash", "width": 1})
    figure.update_xaxes(showticklabels=False, range=[-0.8, max(place.values()) + 0.8])
    return figure
