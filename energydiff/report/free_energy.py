"""The Lyapunov function along sampling, drawn: does V fall at every step?

V goes down with σ², over many decades, so a curve of V looks the same whether or not a step raised
it; and V/σ² rises even where V falls. Hence the change of V in each step stands below V, as a share
of V: what lies above 0 rose. Both are drawn against σ where the noise falls; a chain or a descent
at one noise level is drawn against the number of the step.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
)
from numpy.typing import NDArray
from torch import Tensor

from energydiff.report.style import ALARM, INK, LINE, QUIET, figure
from energydiff.sampling.certificate import Certificate, certify, rising
from energydiff.sampling.trace import Trace
from energydiff.sampling.words import caption

Points = Tensor | NDArray[Any]  # (rises,)

FREE_ENERGY_LABEL = "free energy V(x, σ)"
CHANGE_LABEL = "change of V in a step"


def free_energy_plot(
    trace: Trace, path: str | Path, certificate: Certificate | None = None
) -> None:
    """V along every trajectory and its change in every step, with the certificate as the title.

    Red dots mark where V had risen beyond rounding. Writes ``path`` (png, svg, pdf).

    certificate: the trace's own by default; or of all samples, where only some are drawn.
    """
    with figure(path, 6.4, 6.0) as drawing:
        upper, lower = drawing.subplots(2, 1, sharex=True)
        draw_free_energy(upper, trace)
        draw_changes(lower, trace)
        upper.set(title=caption(certificate or certify(trace)), xlabel="")


def draw_free_energy(axes: Axes, trace: Trace) -> None:
    """The curves, their median and the marks of ``free_energy_plot`` on given axes."""
    x, count = along(trace).numpy(), trace.free_energy.shape[1]
    draw_curves(axes, trace, LINE)
    median = trace.free_energy.double().nanmedian(dim=1).values.numpy()
    axes.plot(x, median, color=INK, linewidth=1.6, label=f"median of {count:,} samples")
    draw_rises(axes, *_rise_points(trace), label="V rose")
    scale_axes(axes, trace)
    axes.set(xlabel=along_label(trace), ylabel=FREE_ENERGY_LABEL)
    axes.legend(loc="lower left", fontsize=9)


def draw_changes(axes: Axes, trace: Trace) -> None:
    """The change of V in every step (``change_shares``) on given axes, where the step ends."""
    draw_change_dots(axes, trace, LINE)
    x, share = along(trace)[1:].numpy(), change_shares(trace).numpy()
    axes.plot(x, np.median(share, axis=1), color=INK, marker="_", markersize=9, linestyle="none")
    step, sample = np.nonzero(rising(trace).numpy())
    draw_rises(axes, x[step], share[step, sample])
    scale_changes(axes, trace)
    at_same_noise = trace.sigma.diff() == 0
    if at_same_noise[-1] and at_same_noise.sum() == 1 < len(at_same_noise):
        axes.annotate(
            "final denoising",
            (x[-1], share[-1].max()),
            xytext=(-8, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=9,
        )
    lowest, highest = axes.get_ylim()
    for word, height, colour in (("rose", highest / 2, ALARM), ("fell", lowest / 2, LINE)):
        where = axes.get_yaxis_transform()
        axes.text(
            1.01, height, word, color=colour, fontsize=9, rotation=270, va="center", transform=where
        )
    axes.set(xlabel=along_label(trace), ylabel=CHANGE_LABEL)


def draw_rises(axes: Axes, x: Points, height: Points, label: str | None = None) -> None:
    """Red dots where V rose, if it did."""
    if len(x):
        axes.scatter(x, height, s=14, color=ALARM, linewidths=0, zorder=3, gid="rises", label=label)


def draw_change_dots(axes: Axes, trace: Trace, colour: str) -> None:
    """One dot per step and sample, the more transparent the more samples there are."""
    share = change_shares(trace).numpy()
    count = share.shape[1]
    axes.scatter(
        np.repeat(along(trace)[1:].numpy(), count),
        share.flatten(),
        s=9,
        color=colour,
        alpha=max(0.04, min(0.6, 12 / count)),
        linewidths=0,
        clip_on=False,
        rasterized=share.size > 5000,
    )


def change_shares(trace: Trace) -> Tensor:
    """The change of V in each step over the larger |V| at its ends, (steps, B).

    Between −2 and 2: where V falls above 0 it is the share of V that a step took. A change that is
    not finite counts as a rise without bound, 1.
    """
    change = (trace.descent + trace.landscape).double()
    size = trace.free_energy.double().abs()
    share = change / torch.maximum(size[1:], size[:-1])
    return torch.where(change == 0, 0.0, share.where(change.isfinite(), 1.0))


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
    axes.yaxis.set_minor_formatter(NullFormatter())
    _scale_along(axes, trace)


def scale_changes(axes: Axes, trace: Trace) -> None:
    """From a whole fall to somewhat above 0, more where V rose; what lies above 0 is shaded."""
    share = change_shares(trace)
    lowest, highest = min(-1.0, float(share.min())), max(0.15, 1.1 * float(share.max()))
    axes.set_ylim(1.05 * lowest, highest)
    axes.axhspan(0, highest, color=ALARM, alpha=0.07, linewidth=0)
    axes.axhline(0, color=QUIET, linewidth=0.8)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _scale_along(axes, trace)


def _scale_along(axes: Axes, trace: Trace) -> None:
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
