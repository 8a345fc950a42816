"""Files that say more of their values than their mode does, written byte by byte."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from energydiff.data import TorchDataset
from energydiff.data.decode import decode_image, image_pixels
from energydiff.data.values import UnreadableImage

GREY, COLOUR, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 4, 6  # PNG's colour types
BLACK_IS_ZERO, WHITE_IS_ZERO, RGB = 1, 0, 2  # TIFF's photometric interpretations


def png(colour_type: int, depth: int, row: bytes, width: int, **chunks: bytes) -> bytes:
    """A PNG one row high, with these chunks before the pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, 1, depth, colour_type, 0, 0, 0)
    parts = [chunk(b"IHDR", header)]
    parts += [chunk(kind.encode(), content) for kind, content in chunks.items()]
    parts += [chunk(b"IDAT", zlib.compress(b"\0" + row)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def deep_row(*values: int) -> bytes:
    return struct.pack(f">{len(values)}H", *values)


def tiff(order: str, row: bytes, width: int, compressed: bool, **tags: tuple[int, ...]) -> bytes:
    """A TIFF one row high in one strip; tags are named t258 and so on and hold 16-bit numbers."""
    end = {"II": "<", "MM": ">"}[order]
    strip = zlib.compress(row) if compressed else row
    numbers = {256: (width,), 257: (1,), 258: (8,), 259: (8 if compressed else 1,), 262: (1,)}
    numbers |= {273: (0,), 277: (1,), 278: (1,), 279: (len(strip),)}
    numbers |= {int(name[1:]): values for name, values in tags.items()}
    entries, long = b"", b""
    start = 8 + 2 + 12 * len(numbers) + 4  # of what does not fit into its entry
    numbers[273] = (start + sum(2 * len(v) for v in numbers.values() if len(v) > 2),)
    for tag, values in sorted(numbers.items()):
        content = struct.pack(f"{end}{len(values)}H", *values)
        if len(values) > 2:
            content, long = struct.pack(f"{end}I", start + len(long)), long + content
        entries += struct.pack(f"{end}HHI", tag, 3, len(values)) + content.ljust(4, b"\0")
    head = order.encode() + struct.pack(f"{end}HIH", 42, 8, len(numbers))
    return head + entries + bytes(4) + long + strip


def packed(values: list[int], bits: int) -> bytes:
    text = "".join(f"{value:0{bits}b}" for value in values)
    return bytes(int(text[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(text), 8))


def decoded(tmp_path: Path, content: bytes, channels: int = 1) -> Any:
    """The one row: its pixels, or its pixels' colours; a file, bytes and an image opened alike."""
    path = tmp_path / "image"
    path.write_bytes(content)
    pixels = decode_image(path, channels, None)
    assert np.array_equal(decode_image(io.BytesIO(content), channels, None), pixels)
    for file in (path, io.BytesIO(content)):
        with Image.open(file) as opened:
            assert np.array_equal(image_pixels(opened, channels, None), pixels)
    row = pixels[:, 0]
    return row[0].tolist() if channels == 1 else row.T.tolist()


def refusal(tmp_path: Path, content: bytes) -> str:
    with pytest.raises(UnreadableImage) as caught:
        decoded(tmp_path, content, 3)
    return str(caught.value)


either = pytest.mark.parametrize("compressed", [False, True])


def test_16_bit_colour_and_16_bit_grey_with_alpha_or_key(tmp_path: Path) -> None:
    colour = decoded(tmp_path, png(COLOUR, 16, deep_row(0, 0x8000, 0xFFFF), 1), 3)
    assert np.abs(np.subtract(colour[0], [0, 128, 255])).max() <= 1
    alpha = decoded(tmp_path, png(GREY_ALPHA, 16, deep_row(0x4000, 0xFFFF, 0x4000, 0), 2))
    assert np.abs(np.subtract(alpha, [64, 255])).max() <= 1
    key = decoded(tmp_path, png(GREY, 16, deep_row(0x1234, 0x4000), 2, tRNS=b"\x12\x34"))
    assert np.abs(np.subtract(key, [255, 64])).max() <= 1


@pytest.mark.parametrize(("depth", "bits"), [(8, 1), (8, 4), (8, 6), (16, 1), (16, 10), (16, 14)])
def test_values_that_png_says_have_fewer_bits_are_scaled_if_they_were_not(
    tmp_path: Path, depth: int, bits: int
) -> None:
    top = 2**bits - 1
    values = sorted({0, top // 3, top // 2, top})
    pack = deep_row if depth == 16 else lambda *row: bytes(row)
    content = png(GREY, depth, pack(*values), len(values), sBIT=bytes([bits]))
    assert decoded(tmp_path, content) == [round(255 * value / top) for value in values]


@pytest.mark.parametrize("top", [15, 1023])
@pytest.mark.parametrize("scale", ["linear", "replicated", "shifted"])
def test_values_that_were_scaled_as_png_asks_stay_however_dark(
    tmp_path: Path, scale: str, top: int
) -> None:
    """Up to 15 of 10 bits all 16-bit values lie below 1024, as if they had not been scaled."""
    x = np.arange(top + 1)
    scaled = {
        "linear": np.round(x * 65535 / 1023).astype(int),
        "replicated": (x << 6) | (x >> 4),
        "shifted": x << 6,
    }[scale]
    content = png(GREY, 16, deep_row(*scaled), len(x), sBIT=b"\x0a")
    assert decoded(tmp_path, content) == np.round(scaled / 257).astype(int).tolist()


def test_fewer_bits_of_16_are_scaled_in_colour_and_alpha_too(tmp_path: Path) -> None:
    """Pillow hands out the first byte of such values only."""
    content = png(COLOUR, 16, deep_row(0, 512, 1023, 1, 5, 9), 2, sBIT=b"\x0a" * 3)
    assert decoded(tmp_path, content, 3) == [[0, 128, 255], [0, 1, 2]]
    row = deep_row(512, 1023, 511, 0)
    assert decoded(tmp_path, png(GREY_ALPHA, 16, row, 2, sBIT=b"\x0a\x0a")) == [128, 255]
    row = deep_row(0, 512, 1023, 0xFFFF)  # alpha in full
    content = png(COLOUR_ALPHA, 16, row, 1, sBIT=b"\x0a\x0a\x0a\x10")
    assert decoded(tmp_path, content, 3) == [[0, 128, 255]]


@pytest.mark.parametrize("significant", [b"", b"\0", b"\x11", b"\x0a\x0a"])
def test_a_senseless_number_of_bits_says_nothing(tmp_path: Path, significant: bytes) -> None:
    content = png(GREY, 16, deep_row(0, 1000, 0xFFFF), 3, sBIT=significant)
    assert decoded(tmp_path, content) == [0, 4, 255]


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_is_compared_as_stored(tmp_path: Path, depth: int) -> None:
    top = 2**depth - 1
    row = packed([0, 1, top // 2, top], depth)
    for key in {0, 1}:
        content = png(GREY, depth, row, 4, tRNS=deep_row(key))
        expected = [round(255 * value / top) for value in (0, 1, top // 2, top)]
        seen = [
            255 if value == key else e
            for value, e in zip((0, 1, top // 2, top), expected, strict=True)
        ]
        assert decoded(tmp_path, content) == seen


def test_a_transparent_16_bit_colour_is_compared_in_both_bytes(tmp_path: Path) -> None:
    row = deep_row(0x1234, 0x5678, 0x9ABC, 0x1234, 0x5678, 0x9ABD)
    content = png(COLOUR, 16, row, 2, tRNS=row[:6])
    assert decoded(tmp_path, content, 3) == [[255, 255, 255], [0x12, 0x56, 0x9A]]


def test_gamma_is_ignored(tmp_path: Path) -> None:
    content = png(GREY, 8, bytes([7, 128]), 2, gAMA=struct.pack(">I", 100_000))
    assert decoded(tmp_path, content) == [7, 128]


@pytest.mark.parametrize("transfer", [16, 18])
def test_high_dynamic_range_is_refused(tmp_path: Path, transfer: int) -> None:
    row = deep_row(0, 0x8000, 0xFFFF)
    content = png(COLOUR, 16, row, 1, cICP=bytes([9, transfer, 0, 1]))
    assert "high dynamic" in refusal(tmp_path, content)
    content = png(COLOUR, 16, row, 1, cICP=bytes([1, 13, 0, 1]))  # sRGB
    assert decoded(tmp_path, content, 3) == [[0, 128, 255]]


@either
def test_12_bit_tiff_is_scaled(tmp_path: Path, compressed: bool) -> None:
    row = packed([0, 2048, 4095, 16], 12)
    content = tiff("II", row, 4, compressed, t258=(12,))
    assert decoded(tmp_path, content) == [0, 128, 255, 1]


@either
@pytest.mark.parametrize("bits", [1, 4, 8, 16])
def test_zero_is_white_where_tiff_says_so(tmp_path: Path, bits: int, compressed: bool) -> None:
    top = 2**bits - 1
    row = struct.pack("<4H", 0, 1, top // 2, top) if bits == 16 else None
    row = row or packed([0, 1, top // 2, top], bits)
    levels = np.array([0, 1, top // 2, top]) / top * 255
    for photometric, expected in ((BLACK_IS_ZERO, levels), (WHITE_IS_ZERO, 255 - levels)):
        content = tiff("II", row, 4, compressed, t258=(bits,), t262=(photometric,))
        assert np.abs(decoded(tmp_path, content) - expected).max() <= 0.5


@either
@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("bits", [8, 16])
def test_signed_tiff_is_refused(tmp_path: Path, bits: int, order: str, compressed: bool) -> None:
    content = tiff(order, bytes(4), 32 // bits, compressed, t258=(bits,), t339=(2,))
    assert "signed pixels have no fixed black" in refusal(tmp_path, content)


@pytest.mark.parametrize(("bits", "sample_format"), [(16, 3), (32, 3), (64, 3), (10, 1), (14, 1)])
def test_tiff_without_a_range_or_with_odd_bits_is_refused_with_advice(
    tmp_path: Path, bits: int, sample_format: int
) -> None:
    content = tiff("II", bytes(bits // 8 * 8), 8, False, t258=(bits,), t339=(sample_format,))
    assert "8 or 16 bits" in refusal(tmp_path, content)


def test_the_highest_value_that_tiff_reports_is_a_statistic(tmp_path: Path) -> None:
    row = struct.pack("<2H", 0, 0x8000)
    assert decoded(tmp_path, tiff("II", row, 2, False, t258=(16,), t281=(0x8000,))) == [0, 128]


def test_tiff_with_premultiplied_alpha(tmp_path: Path) -> None:
    """A quarter of white at half opacity over white: 64 + 127."""
    grey = tiff("II", bytes([64, 128]), 1, False, t258=(8, 8), t277=(2,), t338=(1,))
    assert decoded(tmp_path, grey) == [191]
    options: Any = {"t258": (8, 8, 8, 8), "t262": (RGB,), "t277": (4,), "t338": (1,)}
    colour = tiff("II", bytes([64, 0, 32, 128]), 1, False, **options)
    assert decoded(tmp_path, colour, 3) == [[191, 127, 159]]


def test_16_bit_colours_in_separate_planes_are_refused(tmp_path: Path) -> None:
    """Pillow would take the bytes of each plane for its values."""
    options: Any = {"t262": (RGB,), "t277": (3,), "t284": (2,)}
    content = tiff("II", bytes(6), 1, False, t258=(16, 16, 16), **options)
    assert "separate planes" in refusal(tmp_path, content)


def test_cmyk_jpeg_is_read_only_if_adobe_says_that_it_is_inverted(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("CMYK", (1, 1), (255, 0, 0, 0)).save(buffer, "JPEG", quality=100)
    content = buffer.getvalue()
    assert decoded(tmp_path, content, 3) == [[0, 255, 255]]
    start = content.index(b"\xff\xee")
    end = start + 2 + int.from_bytes(content[start + 2 : start + 4])
    assert "Adobe" in refusal(tmp_path, content[:start] + content[end:])


DEEP = png(GREY, 16, deep_row(0, 512, 1023), 3, sBIT=b"\x0a")


@pytest.mark.parametrize("kind", ["bytes", "path", "opened", "opened bytes"])
def test_items_of_data_sets_are_read_like_files(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(DEEP)
    make: Any = {
        "bytes": lambda: {"image": {"bytes": DEEP, "path": None}},
        "path": lambda: {"image": {"bytes": None, "path": str(path)}},
        "opened": lambda: Image.open(path),
        "opened bytes": lambda: Image.open(io.BytesIO(DEEP)),
    }[kind]
    train, _ = TorchDataset([make() for _ in range(20)], check=False).open()
    assert train[3][0].tolist() == [[[0, 128, 255]]]


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_16_bits_in_memory_are_scaled(mode: str) -> None:
    dtype = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4"}[mode]
    values = np.array([[0, 0x1234, 0x8000, 0xFFFF]], dtype)
    image = Image.frombytes(mode, (4, 1), values.tobytes())
    assert image_pixels(image, None, None).tolist() == [[[0, 18, 128, 255]]]
    image.info["transparency"] = 0x1234
    assert image_pixels(image, 1, None, (7, 7, 7)).tolist() == [[[0, 7, 128, 255]]]


def test_an_image_that_was_loaded_is_taken_as_it_is_in_memory() -> None:
    """Its file is closed, and what is in memory may have been changed."""
    with Image.open(io.BytesIO(DEEP)) as opened:
        opened.putpixel((0, 0), 0xFFFF)
        assert image_pixels(opened, None, None).tolist() == [[[255, 2, 4]]]


def test_grey_stays_grey_unless_channels_are_asked_for() -> None:
    grey = png(GREY_ALPHA, 16, deep_row(0x4000, 0xFFFF), 1)
    assert decode_image(io.BytesIO(grey), None, None).tolist() == [[[64]]]
    colour = png(COLOUR, 16, deep_row(0, 0x8000, 0xFFFF), 1)
    assert decode_image(io.BytesIO(colour), None, None).shape == (3, 1, 1)
    content = tiff("II", bytes([64, 128]), 1, False, t258=(8, 8), t277=(2,), t338=(1,))
    assert decode_image(io.BytesIO(content), None, None).tolist() == [[[191]]]


def test_the_image_handed_in_is_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    path.write_bytes(tiff("II", bytes([0, 9]), 2, False))
    with Image.open(path) as opened:
        assert image_pixels(opened, None, None).tolist() == [[[0, 9]]]
        assert (opened.filename, opened.size, opened.mode) == (str(path), (2, 1), "L")
