"""What a file says of its values beside its mode, and the 8 bits that they are by that.

Said and followed: the bits in use (TIFF BitsPerSample; PNG sBIT where values were not scaled), zero
for white (TIFF), the transparent value (PNG tRNS). Said, and refused because no black and white
follow from it: sign, floating point, high dynamic range, CMYK without Adobe's marker. What turns a
value into light (gamma, profiles) is ignored. So is TIFF's MaxSampleValue, which is a statistic and
by TIFF 6.0 "not to be used to affect the visual appearance".
"""

from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin, TiffImagePlugin

Values = NDArray[Any]  # integers (H, W, C), as stored

GREY, GREY_ALPHA = 0, 4  # two of PNG's colour types


class UnreadableImage(Exception):
    """The image cannot be decoded; the message is the reason and does not name the file."""


def eight_bits(image: Image.Image) -> Image.Image:
    """The image, turned upright, in 8 bits a channel or fewer: black is 0 and white the highest.

    An image that Pillow has opened and not loaded yet is read by what its file says. One in memory
    says no more than its mode: 16 bits are 0..65535. Raises UnreadableImage.
    """
    if image.mode == "F":
        raise UnreadableImage("floating-point pixels have no fixed range; save 8 or 16 bits")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return _tiff(image)
    if isinstance(image, PngImagePlugin.PngImageFile) and image.fp and image.tile:  # not loaded
        return _png(image, image.fp)
    if image.format == "JPEG" and image.mode == "CMYK" and "adobe" not in image.info:
        raise UnreadableImage("CMYK without Adobe's marker may be inverted or not; save RGB")
    return _by_mode(ImageOps.exif_transpose(image))


def _tiff(image: TiffImagePlugin.TiffImageFile) -> Image.Image:
    tags = image.tag_v2
    bits = max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    signed = max(tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))) == 2
    if signed and bits <= 16:
        raise UnreadableImage("signed pixels have no fixed black; save 8 or 16 bits unsigned")
    planar = tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2
    if planar and bits > 8 and image.info["compression"] == "raw":  # Pillow takes bytes for values
        raise UnreadableImage(f"{bits}-bit colours in separate planes; save them interleaved")
    # By its name Pillow would map a plain TIFF into memory, in the wrong order where it lies on its
    # side (orientations 5 to 8).
    name, image.filename = image.filename, ""
    try:
        image.load()
    finally:
        image.filename = name
    upright = ImageOps.exif_transpose(image)
    eight = _by_mode(upright, 4095 if bits == 12 else 65535)
    inverted = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    # Pillow inverts up to 8 bits by itself.
    return ImageOps.invert(eight) if inverted and upright.mode.startswith("I") else eight


def _by_mode(image: Image.Image, white: int = 65535) -> Image.Image:
    """Grey of more than 8 bits, which Pillow gives in full, scaled from 0..white; others as is."""
    if image.mode == "La":  # Pillow makes RGB of all modes with alpha but this
        return image.convert("LA")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)[..., None]
    if values.min() < 0 or values.max() > 65535:
        raise UnreadableImage("pixels lie outside 0..65535; save 8 or 16 bits")
    return _image(values, white, image.info.get("transparency"))


def _png(image: PngImagePlugin.PngImageFile, file: IO[bytes]) -> Image.Image:
    place = file.tell()
    depth, colour_type, chunks = _png_header(file)
    _, transfer, _, full_range = chunks.get(b"cICP", b"\0\0\0\1")
    if transfer in (16, 18) or not full_range:  # PQ, HLG
        raise UnreadableImage("values of high dynamic or narrow range; save sRGB")
    key = image.info.get("transparency")
    significant = chunks.get(b"sBIT", b"")
    said = min(significant, default=depth) < depth or (key is not None and depth != 8)
    low = _low_bytes(file) if said and depth == 16 and colour_type != GREY else None
    file.seek(place)
    upright = ImageOps.exif_transpose(image)  # which loads it, and may close the file
    if depth == 16 and colour_type == GREY_ALPHA:  # Pillow makes RGBA of it
        upright = upright.convert("LA")
    if upright.mode in ("1", "P") or not (said or upright.mode == "I;16"):
        return upright
    values = np.asarray(upright).astype(np.int32).reshape(upright.height, upright.width, -1)
    if low is not None:
        values = (values << 8) | low
    elif depth < 8:  # as stored, which Pillow has scaled
        values //= 255 // (2**depth - 1)
    return _image(values, _white(values, depth, significant), key)


def _image(values: Values, white: Any, key: Any) -> Image.Image:
    """Values (H, W, C) of 0..white, transparent where they are the key if there is one."""
    eight = np.round(values / (white / 255)).astype(np.uint8)
    if key is not None:
        eight = np.dstack([eight, np.where((values == key).all(-1), np.uint8(0), np.uint8(255))])
    return Image.fromarray(eight[..., 0] if eight.shape[-1] == 1 else eight)


def _png_header(file: IO[bytes]) -> tuple[int, int, dict[bytes, bytes]]:
    """Bits per sample, the colour type, and the chunks before the pixels."""
    chunks = {}
    file.seek(8)
    while (head := file.read(8))[4:] not in (b"IDAT", b""):
        chunks[head[4:]] = file.read(int.from_bytes(head[:4]))
        file.seek(4, 1)  # the checksum
    return *chunks[b"IHDR"][8:10], chunks


def _low_bytes(file: IO[bytes]) -> Values:
    """The second byte of 16-bit values (H, W, C), of which Pillow gives the first."""
    with Image.open(file, formats=("PNG",)) as again:
        (tile,) = again.tile
        if tile.args == "LA;16B":  # read as RGBA: two bytes of grey, two of alpha
            again.tile = [tile._replace(args="RGBA")]
            return np.asarray(ImageOps.exif_transpose(again))[..., [1, 3]]
        # In the other byte order the second is the first.
        again.tile = [tile._replace(args=str(tile.args).removesuffix("B") + "L")]
        return np.asarray(ImageOps.exif_transpose(again))


def _white(values: Values, depth: int, significant: bytes) -> Any:
    """The value of white, for each channel of (H, W, C).

    The specification has values scaled to the full depth, and sBIT only tell how many bits they
    had. A value x of n bits then becomes x·2^(depth − n) and, where x > 0, at most 1 more as long
    as that is below 2^n. Values below 2^n that are not of this form were not scaled.
    """
    full = 2**depth - 1
    channels = values.shape[-1]
    bits = np.array([*significant], dtype=np.int64)
    if len(bits) != channels or depth < 8 or bits.min() < 1 or bits.max() > depth:
        return full
    scaled, rest = np.divmod(values, 2 ** (depth - bits))
    fits = np.all(values < 2**bits, axis=(0, 1))
    otherwise = np.any(rest > np.minimum(scaled, 1), axis=(0, 1))
    white = np.full(channels, full)
    colours = 1 if channels < 3 else 3
    for part in slice(colours), slice(colours, None):  # all colours alike, and alpha
        if fits[part].all() and otherwise[part].any():
            white[part] = 2 ** bits[part] - 1
    return white
