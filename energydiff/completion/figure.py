"""Completed images beside what was hidden, and the energy of their completion."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from energydiff.data import Normalization
from energydiff.report.style import INK, LINE, bare, figure
from energydiff.sampling.certificate import certify
from energydiff.sampling.trace import Trace
from energydiff.sampling.words import caption

HIDDEN = (240, 214, 178)  # a pale orange, which no grey pixel is


def completion_figure(
    x: Tensor,
    missing: Tensor,
    fillings: Mapping[str, Tensor],
    trace: Trace,
    normalization: Normalization,
    path: str | Path,
) -> None:
    """A column per image: the original, what was shown of it, and each filling; E per step below.

    Args:
        x: images (B, 1 or 3, H, W); missing: bool, like ``x``; fillings: by name, like ``x``.
        trace: of completions, of these images or of more.
        path: what is written (png, svg, pdf).
    """
    shown = _pixels(x, normalization)
    shown[missing.any(1).numpy()] = HIDDEN
    rows = {"held-out image": _pixels(x, normalization), "shown": shown}
    rows |= {name: _pixels(filled, normalization) for name, filled in fillings.items()}
    with figure(path, 0.72 * len(x) + 1.6, 0.74 * len(rows) + 2.8) as drawing:
        parts: Any = drawing.subfigures(2, 1, height_ratios=(0.74 * len(rows), 2.6))
        top, bottom = parts
        panels = top.subplots(len(rows), len(x), squeeze=False)
        for line, (name, images) in zip(panels, rows.items(), strict=True):
            for axes, image in zip(line, images, strict=True):
                axes.imshow(image, interpolation="nearest")
                bare(axes)
            line[0].set_ylabel(name, rotation=0, ha="right", va="center")
        _draw_energy(bottom.subplots(), trace)


def _draw_energy(axes: Axes, trace: Trace) -> None:
    """Fall of E since the start, one line per sample and their median."""
    fall = (trace.energy - trace.energy[0]).double().numpy()
    steps = np.arange(len(fall))
    lines = [np.column_stack([steps, curve]) for curve in fall.T]
    axes.add_collection(LineCollection(lines, colors=LINE, linewidths=0.6, alpha=0.1))
    axes.plot(steps, np.median(fall, 1), color=INK, linewidth=1.6, marker="o", markersize=3)
    axes.set_title(f"{caption(certify(trace), 'E')}; median in black")
    axes.set(xlabel="descent step", ylabel="E − E at the start")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(0.02)


def _pixels(x: Tensor, normalization: Normalization) -> np.ndarray:
    """(B, H, W, 3) of 0..255."""
    return normalization.to_uint8(x).expand(-1, 3, -1, -1).movedim(1, -1).numpy().copy()
