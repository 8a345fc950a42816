"""Generated samples of each phase, and beneath each the training image nearest to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from torch import Tensor

from energydiff.data import Normalization
from energydiff.memorisation.looking import Opened
from energydiff.report.memorisation.rows import PHASES, Record, first_runs
from energydiff.report.style import QUIET, bare, figure

ROWS, EACH = 4, 6  # sizes, samples of a phase
EDGE = 64  # pixels of an image's longer edge, or its own where it is larger
FRAME, GAP = 3, 7  # pixels

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Shown:
    """Samples of one run and their nearest training images.

    Attributes:
        size: K.
        samples, nearest: by phase, (n, C, H, W), n ≤ ``EACH``.
        shares: of the phases.
    """

    size: int
    samples: dict[str, Tensor]
    nearest: dict[str, Tensor]
    shares: dict[str, float]
    normalization: Normalization


def exemplars_plot(record: Record, folder: Path, path: str | Path) -> bool:
    """A row for each of a few sizes, of the first seed; whether samples are images that can be
    drawn."""
    runs = {run["images"]: run for run in first_runs(record)}
    place = {size: folder / "runs" / f"{size}_seed{run['seed']}" for size, run in runs.items()}
    first = place[min(place)]
    shape = np.load(first / "samples.npy", mmap_mode="c").shape[1:]
    if len(shape) != 3 or Opened.at(first).saved.normalization.picture_shape(shape) is None:
        return False
    counts = {
        size: sum(run["spaces"]["pixels"]["samples"][phase] > 0 for phase in PHASES)
        for size, run in runs.items()
    }
    shown = [
        _read(place[size], size, runs[size]["spaces"]["pixels"]["samples"])
        for size in chosen_sizes(counts)
    ]
    _draw(shown, path)
    return True


def chosen_sizes(phases: dict[int, int]) -> list[int]:
    """The least and the most, and between them evenly spread those of the most phases."""
    known = sorted(phases)
    between = known[1:-1]
    most = max((phases[size] for size in between), default=0)
    rich = [size for size in between if phases[size] == most]
    places = np.linspace(0, len(rich) - 1, min(ROWS - 2, len(rich)) + 2).round().astype(int)[1:-1]
    return sorted({known[0], known[-1], *(rich[place] for place in places)})


def _read(folder: Path, size: int, shares: dict[str, float]) -> Shown:
    run, samples = Opened.at(folder), torch.from_numpy(np.load(folder / "samples.npy"))
    with np.load(folder / "phases.npz") as arrays:
        phase, nearest = arrays["phase"], arrays["nearest"][:, 0]
    rows = {name: np.flatnonzero(phase == i)[:EACH] for i, name in enumerate(PHASES)}
    return Shown(
        size,
        {name: samples[row] for name, row in rows.items()},
        {name: run.train.select(nearest[row]).clean() for name, row in rows.items()},
        shares,
        run.saved.normalization,
    )


def _draw(shown: Sequence[Shown], path: str | Path) -> None:
    sample = next(iter(shown[0].samples.values()))
    _, height, width = shown[0].normalization.picture_shape(tuple(sample.shape[1:])) or ()
    with figure(path, 12.6, len(shown) * (0.45 + 1.32 * height / width) + 0.3) as drawing:
        panels = drawing.subplots(len(shown), len(PHASES), squeeze=False)
        drawing.get_layout_engine().set(wspace=0.05)  # type: ignore[union-attr, call-arg]
        for row, one in zip(panels, shown, strict=True):
            for axes, (phase, colour) in zip(row, PHASES.items(), strict=True):
                sheet = _sheet(one, phase, colour)
                axes.imshow(sheet, interpolation="nearest")
                bare(axes)
                title = f"{phase}, {100 * one.shares[phase]:.1f} %"
                axes.set_title(title, color=colour, fontsize=10)
                if not len(one.samples[phase]):
                    axes.text(0.0, 0.78, "none", transform=axes.transAxes, color=QUIET)
            row[0].set_ylabel(f"K = {one.size:,}", fontsize=11)


def _sheet(shown: Shown, phase: str, colour: str) -> Pixels:
    """Samples in coloured frames above their nearest training images, (H, W, 3)."""
    tiles = [
        _tiles(images[phase], shown.normalization, frame)
        for images, frame in ((shown.samples, colour), (shown.nearest, "#FFFFFF"))
    ]
    height, width = tiles[0].shape[1:3]
    sheet = np.full((2 * height + GAP, EACH * (width + GAP) - GAP, 3), 255, np.uint8)
    for row, images in enumerate(tiles):
        for column, image in enumerate(images):
            top, left = row * (height + GAP), column * (width + GAP)
            sheet[top : top + height, left : left + width] = image
    return sheet


def _tiles(x: Tensor, normalization: Normalization, frame: str) -> Pixels:
    """Images (n, 1 or 3, H, W) enlarged unsmoothed in a frame, (n, H, W, 3)."""
    pixels = normalization.to_uint8(x.nan_to_num(0, 0, 0)).movedim(1, -1).numpy()
    scale = max(1, EDGE // max(pixels.shape[1:3]))
    pixels = pixels.repeat(scale, 1).repeat(scale, 2)
    count, height, width = pixels.shape[:3]
    framed = np.empty((count, height + 2 * FRAME, width + 2 * FRAME, 3), np.uint8)
    framed[:] = np.round(255 * np.array(to_rgb(frame)))
    framed[:, FRAME:-FRAME, FRAME:-FRAME] = pixels
    return framed
