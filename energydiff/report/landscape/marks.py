"""How critical points look in every picture: their shapes and colours by index, their images."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.offsetbox import OffsetImage
from numpy.typing import NDArray
from torch import Tensor

from energydiff.data import Normalization
from energydiff.errors import UserError
from energydiff.landscape.critical import CriticalPoints
from energydiff.report.style import INK, PALETTE

Pixels = NDArray[np.uint8]  # (n, H, W, 1 or 3)

SHAPES = ("o", "D", "^", "s")
COLOURS = (PALETTE[1], PALETTE[4], PALETTE[3], PALETTE[2])


def shape(index: int) -> str:
    return SHAPES[min(index, len(SHAPES) - 1)]


def colour(index: int) -> str:
    return COLOURS[min(index, len(COLOURS) - 1)]


def kind(index: int, dim: int) -> str:
    """What a critical point of this index is called in ``dim`` dimensions."""
    if index == 0:
        return "minimum"
    if index == dim:
        return "maximum"
    return "saddle" if dim == 2 else f"saddle of index {index}"


def draw_points(axes: Axes, points: CriticalPoints, size: float = 42) -> None:
    """Critical points in the plane, a collection for each index k with gid ``index-k``."""
    for index in sorted(set(points.index.tolist())):
        x = points.of_index(index).x.flatten(1)
        axes.scatter(
            x[:, 0],
            x[:, 1],
            s=size,
            marker=shape(index),
            color=colour(index),
            edgecolors=INK,
            linewidths=0.8,
            zorder=4,
            gid=f"index-{index}",
            label=kind(index, x.shape[1]),
        )


def pixels(x: Tensor, normalization: Normalization) -> Pixels:
    """Critical points x (n, \\*shape) as images; ``UserError`` where they are none."""
    if normalization.picture_shape(tuple(x.shape[1:])) is None:
        raise UserError(
            f"critical points of shape {tuple(x.shape[1:])} are not images: draw them without a"
            " normalization."
        )
    shown: Pixels = normalization.to_uint8(x.float()).movedim(1, -1).numpy()
    return shown


def small_picture(image: Pixels, edge: float) -> OffsetImage:
    """An image (H, W, 1 or 3) whose longer edge is ``edge`` inches, its pixels kept sharp."""
    zoom = 72 * edge / max(image.shape[:2])
    colours = np.broadcast_to(image, (*image.shape[:2], 3))
    return OffsetImage(colours, zoom=zoom, interpolation="nearest", resample=False)
