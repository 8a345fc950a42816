"""A landscape of the plane while the noise falls: attractors are born, samples flow down, V falls.

A GIF of one palette, which plays wherever pictures are shown.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from energydiff.errors import UserError
from energydiff.files import whole
from energydiff.landscape.critical import CriticalPoints
from energydiff.landscape.surface import Surface
from energydiff.progress import progress
from energydiff.report.free_energy import scale_axes
from energydiff.report.landscape.marks import colour
from energydiff.report.landscape.plane import Window, counts, draw_plane, plane_points
from energydiff.report.style import INK, PALETTE, QUIET, look
from energydiff.sampling import Euler, Trace
from energydiff.sampling.run import Point

WIDTH, DOTS = 6.4, 100  # inches, and dots per inch
COLOURS = 32
SAMPLES = PALETTE[6]
FRAME, LAST = 90, 2500  # milliseconds


def landscape_animation(
    surface: Surface,
    sigmas: Tensor,
    path: str | Path,
    window: Window,
    seeds: Sequence[int] = range(60),
) -> None:
    """One frame for each noise level: V with its critical points and samples, and V of each so far.

    Samples go by Euler's method from one level to the next, on which the V of an exact energy
    never rises.

    Args:
        sigmas: falling, (frames,).
        path: written, a GIF.

    Raises:
        UserError: the energy has not two variables, or path is no GIF.
    """
    path = Path(path)
    if path.suffix.lower() != ".gif":
        raise UserError(f"{path}: an animation is written as .gif.")
    states: list[Tensor] = []

    def watch(_: int, point: Point) -> None:
        states.append(point.x.detach().cpu().flatten(1))

    result = Euler(sigmas)(surface.energy, seeds=seeds, on_step=watch)
    trace = result.trace
    assert trace is not None
    states.append(result.samples.detach().cpu().flatten(1))
    levels: list[CriticalPoints] = []
    frames: list[Image.Image] = []
    with progress("Drawing frames", len(sigmas)) as tell, look():
        for sigma, x in zip(sigmas.tolist(), states, strict=True):
            levels.append(plane_points(surface, sigma, window, 9))
            frames.append(_frame(surface, levels, window, x, trace))
            tell(len(frames))
    _write(frames, path)


def _frame(
    surface: Surface, levels: list[CriticalPoints], window: Window, x: Tensor, trace: Trace
) -> Image.Image:
    """What is seen at the last of ``levels``, with samples x (B, 2)."""
    ratio = (window[3] - window[2]) / (window[1] - window[0])
    height = (WIDTH - 0.2) * ratio
    drawing = Figure((WIDTH, round(height + 2.0, 2)), dpi=DOTS, facecolor="white")
    canvas = FigureCanvasAgg(drawing)
    share = height / drawing.get_figheight()
    upper = drawing.add_axes((0.1 / WIDTH, 1 - share - 0.05, 1 - 0.2 / WIDTH, share))
    lower = drawing.add_axes((0.11, 0.5 / drawing.get_figheight(), 0.86, 0.8 - share))
    points = levels[-1]
    draw_plane(upper, surface, points, window, scores=False)
    upper.scatter(x[:, 0], x[:, 1], s=12, color=SAMPLES, linewidths=0, zorder=3)
    upper.set_title(f"σ = {float(points.sigma[0]):.2f}:  {counts(points)}", pad=5)
    _draw_so_far(lower, levels, trace)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _draw_so_far(axes: Axes, levels: list[CriticalPoints], trace: Trace) -> None:
    """V of the samples down to the last level, and where the number of minima changed."""
    scale_axes(axes, trace)
    limits = axes.get_xlim(), axes.get_ylim()
    so_far = len(levels)
    shown = trace.free_energy.double()[:so_far]
    for curve in shown.T:
        axes.plot(trace.sigma[:so_far], curve, color=SAMPLES, linewidth=0.7, alpha=0.35)
    axes.scatter(
        trace.sigma[so_far - 1].expand(len(shown[-1])),
        shown[-1],
        s=7,
        color=SAMPLES,
        linewidths=0,
        zorder=3,
    )
    number = [len(points.of_index(0)) for points in levels]
    for i in range(1, so_far):
        if number[i] != number[i - 1]:
            axes.axvline(float(trace.sigma[i]), color=QUIET, linewidth=0.8, linestyle=(0, (3, 2)))
    low, high = float(trace.sigma.min()), float(trace.sigma.max())
    axes.set_xticks([tick for tick in (5, 2, 1, 0.5, 0.2, 0.1, 0.05) if low <= tick <= high])
    axes.tick_params(which="minor", length=0)
    axes.set(xlim=limits[0], ylim=limits[1], xlabel="noise level σ (falling)", ylabel="V(x, σ)")


def _write(frames: list[Image.Image], path: Path) -> None:
    """Frames of one palette, which is that of some of them side by side."""
    chosen = frames[:: max(1, len(frames) // 6)]
    width, height = frames[0].size
    # Marks are few pixels, and their colours would be lost among the many of V.
    accents = [colour(index) for index in range(3)] + [SAMPLES, INK]
    strip = Image.new("RGB", (width, height * len(chosen) + 60 * len(accents)))
    for i, frame in enumerate(chosen):
        strip.paste(frame, (0, i * height))
    for i, accent in enumerate(accents):
        strip.paste(accent, (0, height * len(chosen) + 60 * i, width, strip.height))
    palette = strip.quantize(COLOURS)
    flat = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    with whole(path) as partial:
        flat[0].save(
            partial,
            format="GIF",
            save_all=True,
            append_images=flat[1:],
            duration=[FRAME] * (len(flat) - 1) + [LAST],
            loop=0,
            optimize=False,
        )
