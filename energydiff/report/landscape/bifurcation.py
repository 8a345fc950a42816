"""Bifurcation diagrams: critical points over a parameter, and where their number or index changes.

Solid lines are minima, dashed ones unstable; colours are those of the indices.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor

from energydiff.errors import UserError
from energydiff.landscape.bifurcations.branches import Branch
from energydiff.landscape.bifurcations.connections import Connection
from energydiff.landscape.bifurcations.diagram import Diagram
from energydiff.report.landscape.marks import colour, kind
from energydiff.report.style import ALARM, INK, figure

SHAPES = {"fold": "s", "pitchfork": "o", "transcritical": "D", "branch point": "P", "gap": "X"}
NOISE = "sigma"
SLANT = 0.35  # of the second axis in what is drawn
Heights = list[Tensor]  # of each branch, (m,)


def bifurcation_plot(
    diagram: Diagram,
    path: str | Path,
    *,
    axis: Tensor | None = None,
    free_energy: bool = False,
    connections: Sequence[Connection] = (),
) -> None:
    """Draw branches over the parameter, σ falling from left to right, with events marked.

    Args:
        axis: direction (\\*shape) along which states are seen; one near that of their greatest
            spread by default.
        free_energy: V as height instead.
        connections: branches of unstable manifolds that end on saddles, drawn on their saddles.

    Raises:
        UserError: there is no branch, or path is no picture.
    """
    if not diagram.branches:
        raise UserError("there is no branch to draw a bifurcation diagram of.")
    states = torch.cat([branch.x.flatten(1) for branch in diagram.branches])
    along = oblique_axis(states) if axis is None else axis.flatten().to(states)
    heights = [
        branch.free_energy if free_energy else branch.x.flatten(1) @ along
        for branch in diagram.branches
    ]
    with figure(path, 7.2, 4.6) as drawing:
        axes = drawing.add_subplot()
        draw_branches(axes, diagram, heights)
        draw_connections(axes, diagram, heights, connections)
        draw_events(axes, diagram, heights)
        name = diagram.parameter
        if name == NOISE:
            name = "noise level σ (falling)"
            axes.set_xscale("log")
            axes.invert_xaxis()
            axes.xaxis.set_major_locator(LogLocator(subs=range(1, 10)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        label = "free energy V" if free_energy else "x along an axis"
        if axis is None and not free_energy:
            label = "x along an axis near that of greatest spread"
        axes.set(xlabel=name, ylabel=label, title=_caption(diagram, connections))
        marks, labels = axes.get_legend_handles_labels()
        lines_first = sorted(zip(labels, marks, strict=True), key=_order)
        once = dict(lines_first)
        axes.legend(
            once.values(), once.keys(), loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9
        )


def draw_branches(axes: Axes, diagram: Diagram, heights: Heights) -> None:
    """Every branch, in a piece (gid ``index-k``) for each run of one index."""
    for branch, height in zip(diagram.branches, heights, strict=True):
        dim = branch.x[0].numel()
        cuts = (branch.index.diff() != 0).nonzero()[:, 0] + 1
        for start, end in pairwise([0, *cuts.tolist(), len(branch)]):
            index = int(branch.index[start])
            rows = slice(start, end + 1)  # to where the next begins
            axes.plot(
                branch.parameter[rows],
                height[rows],
                color=colour(index),
                linestyle="-" if index == 0 else (0, (4, 2)),
                linewidth=1.8 if index == 0 else 1.3,
                zorder=3 - min(index, 2),
                gid=f"index-{index}",
                label=kind(index, dim),
            )


def draw_events(axes: Axes, diagram: Diagram, heights: Heights) -> None:
    """A collection for each kind of event, with the kind as its gid."""
    for name in sorted({event.kind for event in diagram.events}):
        found = [event for event in diagram.events if event.kind == name]
        places = [
            _nearest(diagram.branches[event.branches[0]], heights[event.branches[0]], event.x)
            for event in found
        ]
        axes.scatter(
            [event.parameter for event in found],
            places,
            marker=SHAPES.get(name, "P"),
            s=30,
            color=INK,
            edgecolors="white",
            linewidths=0.6,
            zorder=5,
            gid=name,
            label=name,
        )


def draw_connections(
    axes: Axes, diagram: Diagram, heights: Heights, connections: Sequence[Connection]
) -> None:
    """Where along the branch of a saddle its unstable manifold ends on another: a star, or a band
    where symmetry holds it there (gid ``saddle connection``)."""
    mark: dict[str, Any] = {
        "color": ALARM,
        "gid": "saddle connection",
        "label": "saddle connection",
    }
    for connection in connections:
        branch, height = diagram.branches[connection.saddle], heights[connection.saddle]
        low, high = connection.sigma
        if connection.kind == "persistent":
            inside = (branch.parameter >= low) & (branch.parameter <= high) & (branch.index == 1)
            for rows in _runs(inside, (branch.x - connection.x).flatten(1).norm(dim=1)):
                axes.plot(
                    branch.parameter[rows], height[rows], linewidth=6, alpha=0.3, zorder=1, **mark
                )
        else:
            place = _nearest(branch, height, connection.x)
            axes.scatter((low + high) / 2, place, s=80, marker="*", linewidths=0, zorder=6, **mark)


def oblique_axis(x: Tensor) -> Tensor:
    """Unit vector (d,) near that of the greatest spread of states x (n, d), its largest entry
    positive; turned towards the second, so that branches that mirror each other lie apart."""
    axes = torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[:2]
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    axis = axes[0] + SLANT * axes[1:].sum(0)
    return axis / axis.norm()


def _runs(inside: Tensor, distance: Tensor) -> list[slice]:
    """The part of a branch without a gap where ``inside`` holds that comes nearest; none, no
    part: a branch that folds passes the same noise twice."""
    edges = torch.diff(inside.int(), prepend=torch.zeros(1), append=torch.zeros(1))
    starts, ends = (edges == 1).nonzero()[:, 0].tolist(), (edges == -1).nonzero()[:, 0].tolist()
    runs = [slice(a, b) for a, b in zip(starts, ends, strict=True)]
    return sorted(runs, key=lambda rows: float(distance[rows].min()))[:1]


def _order(entry: tuple[str, Artist]) -> tuple[bool, str]:
    """Of a label and its mark in the legend: lines by index, then events."""
    name = str(entry[1].get_gid())
    return not name.startswith("index"), name


def _nearest(branch: Branch, height: Tensor, x: Tensor) -> float:
    """Height of the branch where it passes x."""
    return float(height[(branch.x - x).flatten(1).norm(dim=1).argmin()])


def _caption(diagram: Diagram, connections: Sequence[Connection]) -> str:
    words = [_counted(len(diagram.branches), "branch", "branches")]
    kinds = sorted({event.kind for event in diagram.events})
    words += [_counted(len(diagram.of_kind(name)), name, f"{name}s") for name in kinds]
    if connections:
        words.append(_counted(len(connections), "saddle connection", "saddle connections"))
    return ", ".join(words)


def _counted(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"
