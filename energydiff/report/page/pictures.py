"""Images as small PNG files inside the page."""

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from energydiff.data import Normalization
from energydiff.data.images import open_picture

LARGEST = 64  # pixels of a sample's longer edge on the page
STRIP_BYTES = 1_500_000  # of all film strips before compression
WIDEST = 1400  # pixels of an embedded picture


def sample_uris(samples: Tensor, normalization: Normalization) -> list[str]:
    """Samples (N, \\*shape), each a data URI."""
    return [_uri(_shrunk(x, LARGEST)) for x in _pixels(samples, normalization)]


def strip_uris(trajectories: Tensor, normalization: Normalization, strips: int) -> list[str]:
    """Each sample's way (points, N, \\*shape) as one picture of frames side by side.

    ``strips`` says how many the page has in all, which decides how large a frame may be.
    """
    points, count, *shape = trajectories.shape
    channels = (normalization.picture_shape(tuple(shape)) or shape)[0]
    edge = math.isqrt(STRIP_BYTES // max(1, strips * points * channels))
    edge = min(LARGEST, max(8, edge))
    uris = []
    for sample in range(count):
        frames = [_shrunk(x, edge) for x in _pixels(trajectories[:, sample], normalization)]
        uris.append(_uri(_side_by_side(frames)))
    return uris


def picture_uri(file: Path) -> str:
    """A picture file, made narrower if it is very wide."""
    picture = open_picture(file, WIDEST)
    return _uri(picture if picture.mode in ("L", "P", "RGB") else picture.convert("RGBA"))


def _pixels(x: Tensor, normalization: Normalization) -> NDArray[np.uint8]:
    """(B, H, W, C); what is not finite turns grey."""
    values = normalization.to_uint8(x.detach().float().nan_to_num(0, 0, 0))
    pixels: NDArray[np.uint8] = values.movedim(1, -1).cpu().numpy()
    return pixels


def _shrunk(pixels: NDArray[np.uint8], edge: int) -> Image.Image:
    image = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    scale = edge / max(image.size)
    if scale >= 1:
        return image
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.BOX)


def _side_by_side(frames: Sequence[Image.Image]) -> Image.Image:
    width, height = frames[0].size
    strip = Image.new(frames[0].mode, (width * len(frames), height))
    for i, frame in enumerate(frames):
        strip.paste(frame, (i * width, 0))
    return strip


def _uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
