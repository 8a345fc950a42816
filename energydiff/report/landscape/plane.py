"""Energies of two variables: V as filled contours, its critical points and what they organise.

Dark is low. Arrows are the score, the direction in which V falls. Solid lines are the stable
manifolds of saddles, the borders of basins; thin ones go down from saddles to minima.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from energydiff.errors import UserError
from energydiff.landscape.critical import (
    CriticalPoints,
    critical_points,
    distinct,
    merging_radius,
    nearest,
)
from energydiff.landscape.search import descend
from energydiff.landscape.surface import Surface
from energydiff.report.landscape.manifolds import branches, separatrices
from energydiff.report.landscape.marks import draw_points
from energydiff.report.style import INK, PALETTE, bare, figure

Window = tuple[float, float, float, float]  # left, right, bottom, top
DEPTHS = LinearSegmentedColormap.from_list(
    "depths", ["#1E3A5F", "#3F6E9E", "#86AECF", "#C5DAE9", "#EDF3F8", "#FFFFFF"]
)
PIXELS = 160  # of V along the longer edge
BASIN_PIXELS = 120
LEVELS = 16


def plane_plot(
    surface: Surface,
    points: CriticalPoints,
    path: str | Path,
    window: Window | None = None,
    *,
    basins: bool = False,
    trajectories: Tensor | None = None,
) -> None:
    """The landscape of an energy of two variables at the noise level of ``points``.

    Args:
        points: critical points at one σ, as :func:`plane_points` finds them.
        window: left, right, bottom, top; around the points by default.
        basins: colour the plane by the minimum that descent leads to, instead of by V.
        trajectories: states on the way, (times, B, 2), drawn as curves.

    Raises:
        UserError: the energy has not two variables, or there are no points.
    """
    surface, window = _wide(surface, [points]), window or around(points.x.flatten(1))
    with figure(path, 6.4, 0.4 + 6.0 * _ratio(window)) as drawing:
        axes = drawing.add_subplot()
        draw_plane(axes, surface, points, window, basins=basins)
        if trajectories is not None:
            draw_trajectories(axes, trajectories)
        _legend(drawing, axes)
        axes.set_title(f"V(x, σ = {float(points.sigma[0]):g}): {counts(points)}")


def multiples(
    surface: Surface,
    levels: Sequence[CriticalPoints],
    path: str | Path,
    window: Window | None = None,
    columns: int = 3,
) -> None:
    """One panel for each noise level, in one window: how the landscape divides as σ falls.

    Args:
        levels: critical points at each σ.

    Raises as :func:`plane_plot`.
    """
    surface = _wide(surface, levels)
    window = window or around(torch.cat([points.x.flatten(1) for points in levels]))
    columns = min(columns, len(levels))
    rows = -(-len(levels) // columns)
    with figure(path, 3.1 * columns, 0.4 + (0.3 + 3.0 * _ratio(window)) * rows) as drawing:
        panels = drawing.subplots(rows, columns, squeeze=False).flatten()
        for axes in panels[len(levels) :]:
            axes.set_visible(False)
        for axes, points in zip(panels, levels, strict=False):
            draw_plane(axes, surface, points, window, size=30)
            axes.set_title(f"σ = {float(points.sigma[0]):.3g}: {counts(points)}", fontsize=9)
        _legend(drawing, *panels[: len(levels)])


def plane_points(surface: Surface, sigma: float, window: Window, grid: int = 12) -> CriticalPoints:
    """Critical points that searches for every index find from grid × grid states of the window.

    All are found when ``euler_sum`` is 1 and more states find no others.
    """
    surface, starts = _wide(surface), _grid(window, grid, grid).to(surface.device)
    task = "Searching critical points of the plane"
    found = [critical_points(surface, starts, sigma, index, task) for index in range(3)]
    points = CriticalPoints.join(found)
    return points[distinct(points.x, merging_radius(surface))]


def around(x: Tensor, margin: float = 0.35) -> Window:
    """A window on all x (n, 2), as a share of their extent wider on every side."""
    low, high = x.amin(0), x.amax(0)
    pad = margin * float((high - low).max()) or 1.0
    (left, bottom), (right, top) = (low - pad).tolist(), (high + pad).tolist()
    return left, right, bottom, top


def draw_plane(
    axes: Axes,
    surface: Surface,
    points: CriticalPoints,
    window: Window,
    *,
    basins: bool = False,
    scores: bool = True,
    size: float = 46,
) -> None:
    """Everything of one noise level on given axes."""
    sigma = float(points.sigma[0])
    if basins:
        draw_basins(axes, surface, points, window)
    draw_contours(axes, surface, sigma, window, filled=not basins)
    if scores:
        draw_scores(axes, surface, sigma, window)
    reach = float(np.hypot(window[1] - window[0], window[3] - window[2]))
    for curves, width, gid, label in (
        (branches(surface, points, reach), 0.9, "unstable manifolds", "way down from a saddle"),
        (separatrices(surface, points, reach), 2.0, "stable manifolds", "border of basins"),
    ):
        if curves:
            lines = LineCollection(curves, colors=INK, linewidths=width, gid=gid, label=label)
            axes.add_collection(lines)
    draw_points(axes, points, size)
    axes.set(xlim=window[:2], ylim=window[2:], aspect="equal")
    bare(axes)


def draw_contours(
    axes: Axes, surface: Surface, sigma: float, window: Window, filled: bool = True
) -> None:
    """V in steps that are even in √V above its least: wells are resolved, slopes do not crowd."""
    x, y, value = _heights(surface, sigma, window)
    root = np.sqrt(value - value.min())
    steps = np.linspace(0, root.max(), LEVELS)
    if filled:
        axes.contourf(x, y, root, levels=steps, cmap=DEPTHS)
    axes.contour(x, y, root, levels=steps[1:-1], colors="white", linewidths=0.5, alpha=0.6)


def draw_scores(
    axes: Axes, surface: Surface, sigma: float, window: Window, count: int = 17
) -> None:
    """Arrows along −∇V, their length the square root of its size."""
    across, up = _shape(window, count)
    x = _grid(window, across, up, inner=True)
    slope = surface.gradient(x.to(surface.device), sigma)[1].cpu()
    size = slope.norm(dim=1, keepdim=True)
    arrow = (-slope / size.clamp(min=1e-12) * (size / size.max()).sqrt()).numpy()
    axes.quiver(
        *x.T.numpy(), *arrow.T, color=INK, alpha=0.45, scale=1.35 * count, width=0.0028, zorder=2
    )


def draw_basins(axes: Axes, surface: Surface, points: CriticalPoints, window: Window) -> None:
    """A colour for each minimum, of the states from which descent in small steps ends in it."""
    minima, sigma = points.of_index(0), float(points.sigma[0])
    across, up = _shape(window, BASIN_PIXELS)
    starts = _grid(window, across, up, inner=True).to(surface.device)
    ends = descend(surface, starts, sigma, eta=0.2, steps=400)
    number = nearest(ends, minima.x.flatten(1))[1].view(up, across).numpy()
    pale = [0.45 + 0.55 * np.array(to_rgb(PALETTE[i % len(PALETTE)])) for i in range(len(minima))]
    axes.imshow(
        number,
        extent=window,
        origin="lower",
        cmap=ListedColormap(pale),
        vmin=-0.5,
        vmax=len(minima) - 0.5,
        interpolation="nearest",
        gid="basins",
    )


def draw_trajectories(axes: Axes, states: Tensor) -> None:
    """States on their way, (times, B, 2), as curves that end in a dot."""
    paths = list(states.detach().cpu().transpose(0, 1).numpy())
    axes.add_collection(
        LineCollection(paths, colors=PALETTE[6], linewidths=0.8, alpha=0.7, gid="trajectories")
    )
    ends = states[-1].detach().cpu()
    axes.scatter(ends[:, 0], ends[:, 1], s=10, color=PALETTE[6], linewidths=0, zorder=3)


def counts(points: CriticalPoints) -> str:
    """Critical points by index, in words."""
    names = ("minimum", "minima"), ("saddle", "saddles"), ("maximum", "maxima")
    found = [(int((points.index == index).sum()), name) for index, name in enumerate(names)]
    return ", ".join(f"{n} {name[n > 1]}" for n, name in found if n)


def _legend(drawing: Figure, *panels: Axes) -> None:
    """Every mark once, below the drawing."""
    marks: dict[str, Artist] = {}
    for axes in panels:
        marks |= {
            label: mark for mark, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
    points_first = sorted(marks, key=lambda label: str(marks[label].get_gid()))
    marks = {label: marks[label] for label in points_first}
    drawing.legend(
        marks.values(), marks.keys(), loc="outside lower center", ncols=len(marks), fontsize=9
    )


def _wide(surface: Surface, levels: Sequence[CriticalPoints] = ()) -> Surface:
    """The surface with many states at a time: those of the plane are small."""
    if surface.dim != 2:
        raise UserError(f"only energies of two variables can be mapped, not of {surface.dim}.")
    if not all(map(len, levels)):
        raise UserError("there are no critical points to map: widen the window of the search.")
    return Surface(surface.energy, surface.label, chunk=4096)


def _heights(
    surface: Surface, sigma: float, window: Window
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    across, up = _shape(window, PIXELS)
    value = surface.value(_grid(window, across, up).to(surface.device), sigma).cpu()
    left, right, bottom, top = window
    x, y = np.linspace(left, right, across), np.linspace(bottom, top, up)
    return x, y, value.view(up, across).numpy()


def _grid(window: Window, across: int, up: int, inner: bool = False) -> Tensor:
    """States row by row, (up · across, 2), float64; with ``inner`` half a step from the edges."""
    left, right, bottom, top = window
    x, y = (
        low + (high - low) * (torch.arange(n, dtype=torch.float64) + 0.5) / n
        if inner
        else torch.linspace(low, high, n, dtype=torch.float64)
        for low, high, n in ((left, right, across), (bottom, top, up))
    )
    return torch.cartesian_prod(y, x).flip(1)


def _shape(window: Window, longest: int) -> tuple[int, int]:
    """Columns and rows of square cells."""
    width, height = window[1] - window[0], window[3] - window[2]
    cell = max(width, height) / longest
    return max(2, round(width / cell)), max(2, round(height / cell))


def _ratio(window: Window) -> float:
    """Height over width."""
    return (window[3] - window[2]) / (window[1] - window[0])
