"""Samples as pictures: alone, above their falling free energy, and beside another model's."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from PIL.Image import Image
from torch import Tensor

from energydiff.data import Normalization, image_grid
from energydiff.errors import UserError
from energydiff.files import whole
from energydiff.report.free_energy import (
    CHANGE_LABEL,
    FREE_ENERGY_LABEL,
    along,
    along_label,
    change_shares,
    draw_change_dots,
    draw_curves,
    draw_rises,
    scale_axes,
    scale_changes,
)
from energydiff.report.style import PALETTE, QUIET, bare, figure
from energydiff.sampling.certificate import certify, rising
from energydiff.sampling.trace import Trace
from energydiff.sampling.words import caption

GAP = 6  # pixels between samples: strokes that touch the edge must not run into the next one


def sample_grid(
    x: Tensor, normalization: Normalization, path: str | Path, columns: int | None = None
) -> None:
    """Samples (B, 1 or 3, H, W) as a PNG, enlarged unsmoothed; as square a grid as can be unless
    so many ``columns`` are asked for."""
    path = Path(path)
    grid = image_grid(x, normalization, columns, gap=GAP)
    with whole(path) as partial:
        grid.save(partial, format="PNG")


def samples_with_traces(
    x: Tensor, trace: Trace, normalization: Normalization, path: str | Path
) -> None:
    """The first seven samples, each above its own V and the change of V in each of its steps.

    All other samples are grey. Red dots mark where V had risen beyond rounding.

    Args:
        x: samples (B, 1 or 3, H, W).
        trace: the record of their making, over the same B samples.

    Raises UserError if samples and trace differ in number.
    """
    count = trace.free_energy.shape[1]
    if len(x) != count:
        raise UserError(f"{len(x)} samples do not go with a trace of {count}.")
    shown = min(count, len(PALETTE))
    with figure(path, 1.45 * shown + 0.6, 5.2) as drawing:
        axes = drawing.subplots(3, shown, squeeze=False, height_ratios=(1, 1.2, 1.1))
        for i in range(shown):
            top, curve, change = axes[:, i]
            _show(top, image_grid(x[i : i + 1], normalization))
            bare(top, frame=PALETTE[i], width=2.5)
            draw_curves(curve, trace, QUIET)
            scale_axes(curve, trace)
            draw_change_dots(change, trace, QUIET)
            scale_changes(change, trace)
            _mark(curve, change, trace, i, PALETTE[i])
            curve.tick_params(labelbottom=False)
            for panel in (curve, change):
                panel.tick_params(labelsize=8, labelleft=i == 0)
                panel.tick_params(which="minor", length=0)
        axes[1, 0].set_ylabel(FREE_ENERGY_LABEL)
        axes[2, 0].set_ylabel(CHANGE_LABEL)
        drawing.supxlabel(along_label(trace), fontsize=10)
        drawing.suptitle(caption(certify(trace)), fontsize=11)


def _mark(curve: Axes, change: Axes, trace: Trace, sample: int, colour: str) -> None:
    """One sample's V and its changes, with its rises."""
    x = along(trace).numpy()
    value, share = trace.free_energy[:, sample].numpy(), change_shares(trace)[:, sample].numpy()
    curve.plot(x, value, color=colour, linewidth=2, marker="o", markersize=2.5)
    change.plot(x[1:], share, "o", color=colour, markersize=4, clip_on=False)
    rose = rising(trace)[:, sample].numpy()
    for axes, height in ((curve, value[1:]), (change, share)):
        draw_rises(axes, x[1:][rose], height[rose])


def comparison_grid(
    models: Mapping[str, Tensor], normalization: Normalization, path: str | Path
) -> None:
    """Samples of several models side by side; the same place means the same starting noise.

    ``models`` gives by label the samples (B, 1 or 3, H, W) of each. Raises UserError if their
    shapes differ.
    """
    if len({tuple(x.shape) for x in models.values()}) != 1:
        shapes = ", ".join(f"{label} {tuple(x.shape)}" for label, x in models.items())
        raise UserError(f"models to compare need samples of one shape, got {shapes or 'none'}.")
    grids = {label: image_grid(x, normalization, gap=GAP) for label, x in models.items()}
    first = next(iter(grids.values()))
    with figure(path, 4 * len(grids), 4 * first.height / first.width + 0.5) as drawing:
        panels = drawing.subplots(1, len(grids), squeeze=False)[0]
        for axes, (label, grid) in zip(panels, grids.items(), strict=True):
            _show(axes, grid)
            bare(axes)
            axes.set_title(label)


def _show(axes: Axes, picture: Image) -> None:
    """A picture with pixels kept sharp."""
    axes.imshow(np.asarray(picture.convert("RGB")), interpolation="nearest")
