"""Samples as pictures: numbered PNG files, and a grid for the eye."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from energydiff.data.normalization import Normalization
from energydiff.errors import UserError
from energydiff.files import whole

LEGIBLE_PIXELS = 64


def write_images(
    x: Tensor, folder: str | Path, normalization: Normalization, start: int = 0
) -> list[Path]:
    """Writes samples (B, \\*shape) as 000000.png, ..., counting from ``start``.

    Makes the folder if need be and returns the paths. Raises UserError for samples that are not
    finite images.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, pixels in enumerate(_pixels(x, normalization), start):
        paths.append(folder / f"{i:06d}.png")
        image = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
        with whole(paths[-1], sync=False) as partial:  # by the thousand
            image.save(partial, format="PNG")
    return paths


def image_grid(
    x: Tensor, normalization: Normalization, columns: int | None = None, gap: int = 2
) -> Image.Image:
    """Samples (B, \\*shape) side by side on white, row by row, ``gap`` pixels apart.

    Small samples are enlarged by a whole factor without smoothing, to some 64 pixels. columns: as
    many as make the grid square by default. Raises UserError as ``write_images``.
    """
    pixels = _pixels(x, normalization)
    if not len(pixels):
        raise UserError("There are no samples to draw: ask for at least one.")
    scale = max(1, LEGIBLE_PIXELS // max(pixels.shape[1:3]))
    pixels = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
    count, height, width, channels = pixels.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap, channels)
    grid = np.full(shape, 255, np.uint8)
    for i, sample in enumerate(pixels):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        grid[top : top + height, left : left + width] = sample
    return Image.fromarray(grid.squeeze(2) if channels == 1 else grid)


def open_picture(file: Path, widest: int) -> Image.Image:
    """A picture file of any kind, made narrower if it is wider than so many pixels.

    Raises UserError where there is none.
    """
    try:
        with Image.open(file) as picture:
            picture.thumbnail((widest, 4 * widest))
            return picture.copy()
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UserError(f"{file} cannot be read as a picture.") from error


def _pixels(x: Tensor, normalization: Normalization) -> NDArray[np.uint8]:
    """(B, H, W, C) of 0..255."""
    if normalization.picture_shape(tuple(x.shape[1:])) is None:
        raise UserError(
            f"Samples of shape {tuple(x.shape[1:])} are not images: only (1, H, W) and (3, H, W) "
            "can be drawn."
        )
    finite = x.isfinite().flatten(1).all(1)
    if not finite.all():
        raise UserError(f"Sample {int(finite.int().argmin())} holds values that are not finite.")
    pixels: NDArray[np.uint8] = normalization.to_uint8(x.detach()).permute(0, 2, 3, 1).cpu().numpy()
    return pixels
