"""From an image, in a file or in memory, to uint8 pixels.

The rules: only the formats below, whatever the suffix says; the first frame; turned as its EXIF
orientation asks; 16-bit grey scaled to 8 bits; palettes, CMYK and 1-bit converted; transparency
composited over white; colour profiles ignored; grey from colour by ITU-R 601 luma. With an image
size, the largest centred square is resampled (antialiased Lanczos), which is the same as resizing
the shorter side and cropping the centre.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"))


class UnreadableImage(Exception):
    """The file cannot be decoded; the message is the reason and does not name the file."""


def decode_image(
    file: Path | IO[bytes], channels: int | None, image_size: int | None
) -> NDArray[np.uint8]:
    """Pixels of an image file, as of :func:`image_pixels`. Raises UnreadableImage."""
    with _reasons(), Image.open(file, formats=FORMATS) as opened:
        return image_pixels(opened, channels, image_size)


def image_pixels(
    image: Image.Image, channels: int | None, image_size: int | None
) -> NDArray[np.uint8]:
    """Pixels (channels, H, W), grey for one channel and RGB for three, 0..255.

    H = W = image_size, or the size of the image when that is None. Channels None: 1 of a grey
    image, 3 of any other. Raises UnreadableImage.
    """
    with _reasons():
        # Pillow only warns up to twice its limit; either is a bomb or a mistake here.
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and image.width * image.height > limit:
            raise UnreadableImage(
                f"{image.width}x{image.height} pixels exceed the limit of {limit}"
            )
        if channels is None:
            channels = 1 if image.mode in ("1", "L", "LA") or image.mode.startswith("I") else 3
        image = _over_white(_eight_bits(ImageOps.exif_transpose(image)))
        if channels == 1:
            image = image.convert("L")
        if image_size is not None:
            image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.LANCZOS)
        pixels = np.asarray(image).reshape(image.height, image.width, channels)
        return np.array(pixels.transpose(2, 0, 1), order="C")


@contextmanager
def _reasons() -> Iterator[None]:
    """Whatever goes wrong becomes UnreadableImage."""
    try:
        yield
    except UnreadableImage:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImage(f"not an image in any of the formats {', '.join(FORMATS)}") from error
    except Exception as error:  # a damaged file can raise anything
        raise UnreadableImage(str(error) or type(error).__name__) from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits, scaled from 0..65535 to 0..255; other images as they are."""
    if image.mode == "F":
        raise UnreadableImage("floating-point pixels have no fixed range; save 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    if (transparent := image.info.get("transparency")) is not None:
        values = np.where(values == transparent, 65535, values)  # over white
    if values.min() < 0 or values.max() > 65535:
        raise UnreadableImage("pixels lie outside 0..65535; save 8 or 16 bits")
    return Image.fromarray(np.round(values / 257).astype(np.uint8))


def _over_white(image: Image.Image) -> Image.Image:
    """RGB, with whatever is transparent blended over white."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
