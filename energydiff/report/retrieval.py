"""Retrieval as a picture: originals, then each corruption above what was made of it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from energydiff.data import Normalization, image_grid
from energydiff.report.style import bare, figure

GAP = 6  # pixels between images


def retrieval_rows(
    original: Tensor,
    corruptions: Mapping[str, tuple[Tensor, Tensor]],
    normalization: Normalization,
    path: str | Path,
) -> None:
    """A row of originals, then for each corruption a row corrupted and a row retrieved.

    ``original`` is (B, 1 or 3, H, W); ``corruptions`` gives by name the corrupted and the retrieved
    images, both like it. Writes ``path`` (png, svg, pdf).
    """
    panels = {"original": original}
    for name, (corrupted, retrieved) in corruptions.items():
        panels[name] = corrupted
        panels[f"{name}\0"] = retrieved  # drawn below it, without a title of its own
    strips = {
        name: image_grid(x, normalization, columns=len(x), gap=GAP) for name, x in panels.items()
    }
    height = 0.62 * len(strips) + 0.4
    with figure(path, 9.0, height) as drawing:
        rows = drawing.subplots(len(strips), 1, squeeze=False)[:, 0]
        for axes, (name, strip) in zip(rows, strips.items(), strict=True):
            axes.imshow(np.asarray(strip.convert("RGB")), interpolation="nearest")
            bare(axes)
            label = "retrieved" if name.endswith("\0") else name
            axes.set_ylabel(label, rotation=0, ha="right", va="center")
