"""From an image, in a file or in memory, to uint8 pixels.

The rules: only the formats below, whatever the suffix says; the first frame; turned as its EXIF
orientation asks; more than 8 bits scaled to 8 by what the file says of its values (``values.py``);
palettes, CMYK and 1-bit converted; transparency composited over a background colour; gamma and
colour profiles ignored; grey from colour by ITU-R 601 luma. With an image size, the largest centred
square is resampled (antialiased Lanczos), which is the same as resizing the shorter side and
cropping the centre. A JPEG's decoder can leave out the finest frequencies (Pillow's draft mode):
that halves, quarters or eighths an image before it is resampled, in less time and almost the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError

from energydiff.data.values import UnreadableImage, eight_bits
from energydiff.errors import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"))


Colour = tuple[int, int, int]
WHITE = (255, 255, 255)


def parse_colour(text: str) -> Colour:
    """Red, green and blue of a colour given as a CSS name or as #rrggbb; raises UserError."""
    try:
        red, green, blue, *opacity = ImageColor.getrgb(text)
        if opacity:
            raise ValueError("a background is opaque")
    except (ValueError, TypeError) as error:  # to YAML, #rrggbb without quotes is None
        raise UserError(
            f"data.source.background is {text!r}: give a colour name, such as black, or '#rrggbb'"
            " in quotes."
        ) from error
    return red, green, blue


def decode_image(
    file: Path | IO[bytes],
    channels: int | None,
    image_size: int | None,
    background: Colour = WHITE,
    draft: bool = False,
) -> NDArray[np.uint8]:
    """Pixels of an image file, as of :func:`image_pixels`. Raises UnreadableImage."""
    with _reasons(), Image.open(file, formats=FORMATS) as opened:
        return image_pixels(opened, channels, image_size, background, draft)


def image_pixels(
    image: Image.Image,
    channels: int | None,
    image_size: int | None,
    background: Colour = WHITE,
    draft: bool = False,
) -> NDArray[np.uint8]:
    """Pixels (channels, H, W), grey for one channel and RGB for three, 0..255.

    H = W = image_size, or the size of the image when that is None. Channels None: 1 of a grey
    image, 3 of any other. background: what is seen through transparent pixels. draft: decode a JPEG
    that is to become smaller at a half, a quarter or an eighth of its size, as long as that is
    twice the ``image_size``. Raises UnreadableImage.
    """
    with _reasons():
        # Pillow only warns up to twice its limit; either is a bomb or a mistake here.
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and image.width * image.height > limit:
            raise UnreadableImage(
                f"{image.width}x{image.height} pixels exceed the limit of {limit}"
            )
        if draft and image_size is not None:
            image.draft(None, (2 * image_size, 2 * image_size))  # nothing for other formats
        image = eight_bits(image)
        if channels is None:
            channels = 1 if image.mode in ("1", "L", "LA") else 3
        image = _over(background, image)
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
        raise UnreadableImage(
            f"not an image in any of the formats {', '.join(FORMATS)}, or of a kind that Pillow "
            "does not read; save PNG of 8 or 16 bits"
        ) from error
    except Exception as error:  # a damaged file can raise anything
        raise UnreadableImage(str(error) or type(error).__name__) from error


def _over(background: Colour, image: Image.Image) -> Image.Image:
    """RGB, with whatever is transparent blended over the background."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, background), image).convert("RGB")
