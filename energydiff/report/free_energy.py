"""The Lyapunov function along sampling, drawn: does V fall at every step?

V is drawn against σ where the noise falls. A chain or a descent at one noise level is drawn against
the number of the step.
"""

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from torch import Tensor

from energydiff.report.style import ALARM, INK, LINE, figure
from energydiff.report.words import caption
from energydiff.sampling.certificate import rising
from energydiff.sampling.trace import Trace

FREE_ENERGY_LABEL = "free energy V(x, σ)"


def free_energy_plot(trace: Trace, path: str | Path) -> None:
    """V along every trajectory of a trace, with the certificate as its title.

    Red dots mark the points at which V had risen beyond rounding. Writes ``path`` (png, svg, pdf).
    """
    with figure(path, 6.4, 4.2) as drawing:
        axes = drawing.add_subplot()
        draw_free_energy(axes, trace)
        axes.set_title(caption(trace))


def draw_free_energy(axes: Axes, trace: Trace) -> None:
    """The curves, their median and the marks of ``free_energy_plot`` on given axes."""
    x, count = along(trace).numpy(), trace.free_energy.shape[1]
    draw_curves(axes, trace, LINE)
    median = trace.free_energy.double().nanmedian(dim=1).values.numpy()
    axes.plot(x, median, color=INK, linewidth=1.6, label=f"median of {count:,} samples")
    where, height = _rise_points(trace)
    if len(where):
        axes.scatter(
            where, height, s=14, color=ALARM, linewidths=0, zorder=3, gid="rises", label="V rose"
        )
    scale_axes(axes, trace)
    last_move = noise_falls(trace) and trace.sigma[-1] == trace.sigma[-2]
    if last_move and 0 < median[-1] < 0.7 * median[-2]:
        axes.annotate(
            "final denoising",
            (x[-1], median[-1]),
            xytext=(-6, 0),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=9,
        )
    axes.set(xlabel=along_label(trace), ylabel=FREE_ENERGY_LABEL)
    axes.legend(loc="lower left", fontsize=9)


def noise_falls(trace: Trace) -> bool:
    return bool(trace.sigma[-1] < trace.sigma[0])


def along(trace: Trace) -> Tensor:
    """What V is drawn against, (steps + 1,): σ, or the number of the step if σ stays."""
    return trace.sigma if noise_falls(trace) else torch.arange(len(trace.sigma))


def along_label(trace: Trace) -> str:
    if noise_falls(trace):
        return "noise level σ (falling)"
    return f"step (noise level σ = {float(trace.sigma[0]):g})"


def draw_curves(axes: Axes, trace: Trace, colour: str) -> None:
    """One thin line per sample, the more transparent the more there are."""
    x, value = along(trace).numpy(), trace.free_energy.double().numpy()
    count = value.shape[1]
    lines = LineCollection(
        [np.column_stack([x, curve]) for curve in value.T],
        colors=colour,
        linewidths=0.7,
        alpha=max(0.04, min(0.5, 8 / count)),
        rasterized=count > 500,  # an SVG of thousands of paths serves nobody
    )
    axes.add_collection(lines)


def scale_axes(axes: Axes, trace: Trace) -> None:
    """Logarithmic axes with σ falling from left to right; a step axis is linear.

    V is never negative for a true density. A learned one can dip below 0 at low noise, where the
    V axis then turns linear.
    """
    value = trace.free_energy[trace.free_energy.isfinite()].double()
    if not len(value):
        return
    highest = float(value.abs().max())
    lowest = float(value.min())
    if lowest > 0:
        axes.set_yscale("log")
        axes.set_ylim(lowest / 1.6, highest * 1.6)
    else:
        linear = max(1e-4 * highest, min(-lowest, highest) or 1e-4 * highest)
        axes.set_yscale("symlog", linthresh=linear)
        axes.set_ylim(1.3 * lowest - 0.1 * linear, highest * 1.6)
    if noise_falls(trace):
        axes.set_xscale("log")
        axes.set_xlim(float(trace.sigma.max()) * 1.1, float(trace.sigma.min()) / 1.1)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda s, _: f"{s:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.margins(x=0.02)
        axes.autoscale(axis="x")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _rise_points(trace: Trace) -> tuple[Tensor, Tensor]:
    """Where along the axis V had risen, and V there, (rises,) each.

    Where V was not finite, the last point before it.
    """
    rose = rising(trace)
    after, before = trace.free_energy[1:], trace.free_energy[:-1]
    shown = after.isfinite()
    height = torch.where(shown, after, before)
    x = along(trace)[:, None]
    return torch.where(shown, x[1:], x[:-1])[rose], height[rose]
