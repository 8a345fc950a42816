"""One made file per kind of image, against the pixels it should give."""

import io
import resource
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_image

from energydiff.data.decode import decode_image, parse_colour
from energydiff.data.values import UnreadableImage
from energydiff.errors import UserError

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (6, 5), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (6, 5, 3), dtype=np.uint8)
ALPHA = RANDOM.integers(0, 256, (6, 5), dtype=np.uint8)


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def rgb(path: Path) -> NDArray[np.int64]:
    pixels = decode_image(path, 3, None)
    assert pixels.dtype == np.uint8
    assert pixels.flags["C_CONTIGUOUS"]
    return pixels.transpose(1, 2, 0).astype(int)


def over_white(pixels: NDArray[Any], alpha: NDArray[Any], white: Any = 255) -> NDArray[np.float64]:
    share = alpha[..., None] / 255
    return share * pixels.reshape(6, 5, -1) + (1 - share) * np.array(white)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp"])
def test_lossless_colour(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(COLOUR), lossless=True)
    assert np.array_equal(rgb(path), COLOUR)


def test_jpeg(tmp_path: Path) -> None:
    smooth = np.linspace(0, 255, 64)[None, :, None] * np.ones((48, 1, 3))
    path = save(tmp_path / "a.jpg", Image.fromarray(smooth.astype(np.uint8)), quality=95)
    assert np.abs(rgb(path) - smooth).max() < 6


@pytest.mark.parametrize("suffix", ["png", "tiff", "bmp"])
def test_grey_is_the_same_in_one_channel_and_in_three(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(GREY))
    assert np.array_equal(decode_image(path, 1, None), GREY[None])
    assert np.array_equal(decode_image(path, 3, None), np.stack([GREY] * 3))


def test_grey_from_colour_is_luma(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(COLOUR))
    luma = COLOUR @ np.array([0.299, 0.587, 0.114])
    assert np.abs(decode_image(path, 1, None)[0] - luma).max() <= 1


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit_grey_is_scaled(tmp_path: Path, suffix: str) -> None:
    deep = RANDOM.integers(0, 65536, (6, 5), dtype=np.uint16)
    deep[0, :3] = 0, 300, 65535  # 300 would be white if clipped
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(deep))
    assert np.array_equal(decode_image(path, 1, None)[0], np.round(deep / 257))


def test_big_endian_16_bit_grey_is_scaled(tmp_path: Path) -> None:
    deep = RANDOM.integers(0, 65536, (6, 5), dtype=np.uint16)
    image = Image.frombytes("I;16B", (5, 6), deep.astype(">u2").tobytes())
    path = save(tmp_path / "a.tiff", image)
    assert np.array_equal(decode_image(path, 1, None)[0], np.round(deep / 257))


def test_32_bit_grey_is_read_as_16_bit_or_refused(tmp_path: Path) -> None:
    wide = RANDOM.integers(0, 65536, (6, 5)).astype(np.int32)
    path = save(tmp_path / "a.tiff", Image.fromarray(wide))
    assert np.array_equal(decode_image(path, 1, None)[0], np.round(wide / 257))
    save(path, Image.fromarray(wide - 70_000))
    with pytest.raises(UnreadableImage, match=r"outside 0\.\.65535"):
        decode_image(path, 1, None)


def test_floating_point_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tiff", Image.fromarray(GREY.astype(np.float32)))
    with pytest.raises(UnreadableImage, match="floating-point"):
        decode_image(path, 3, None)


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
def test_alpha_is_composited_over_white(tmp_path: Path, suffix: str) -> None:
    image = Image.fromarray(np.dstack([COLOUR, ALPHA]))
    path = save(tmp_path / f"a.{suffix}", image, lossless=True, exact=True)
    assert np.abs(rgb(path) - over_white(COLOUR, ALPHA)).max() <= 1


def test_grey_with_alpha_is_composited_over_white(tmp_path: Path) -> None:
    image = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)])
    path = save(tmp_path / "a.png", image)
    assert np.abs(rgb(path) - over_white(GREY, ALPHA)).max() <= 1
    assert np.abs(decode_image(path, 1, None)[0] - over_white(GREY, ALPHA)[..., 0]).max() <= 1


BACKGROUNDS = {"black": (0, 0, 0), "#204060": (0x20, 0x40, 0x60), "SteelBlue": (70, 130, 180)}


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_another_background_is_seen_through_alpha_and_the_transparent_value(
    tmp_path: Path, name: str
) -> None:
    background = parse_colour(name)
    assert background == BACKGROUNDS[name]
    path = save(tmp_path / "a.png", Image.fromarray(np.dstack([COLOUR, ALPHA])))
    pixels = decode_image(path, 3, None, background).transpose(1, 2, 0)
    assert np.abs(pixels - over_white(COLOUR, ALPHA, background)).max() <= 1
    grey = np.full((6, 5), 30_000, np.uint16)
    grey[2, 3] = 7
    save(path, Image.fromarray(grey), transparency=7)
    pixels = decode_image(path, 3, None, background)
    assert tuple(pixels[:, 2, 3]) == background
    assert (np.delete(pixels.reshape(3, 30), 13, axis=1) == 117).all()
    luma = decode_image(path, 1, None, background)[0, 2, 3]
    assert abs(luma - np.dot(background, (0.299, 0.587, 0.114))) <= 1


@pytest.mark.parametrize("name", ["", "whiteish", "#12345", "#12345678", "255,255,255", None])
def test_what_is_no_opaque_colour_is_refused(name: Any) -> None:
    with pytest.raises(UserError, match=r"data\.source\.background is .*: give a colour name"):
        parse_colour(name)


def palette_image() -> tuple[Image.Image, NDArray[np.uint8], NDArray[np.uint8]]:
    """An image of four colours, its colours and the index of each pixel."""
    colours = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250], [9, 9, 9]], dtype=np.uint8)
    indices = RANDOM.integers(0, 4, (6, 5), dtype=np.uint8)
    image = Image.fromarray(indices).convert("L")
    image.putpalette(colours.tobytes())
    return image, colours, indices


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp"])
def test_palette(tmp_path: Path, suffix: str) -> None:
    image, colours, indices = palette_image()
    path = save(tmp_path / f"a.{suffix}", image)
    assert np.array_equal(rgb(path), colours[indices])


@pytest.mark.parametrize(("suffix", "key"), [("png", 1), ("gif", 1), ("png", b"\xff\x00\x80\xff")])
def test_palette_with_transparency(tmp_path: Path, suffix: str, key: int | bytes) -> None:
    image, colours, indices = palette_image()
    path = save(tmp_path / f"a.{suffix}", image, transparency=key)
    alphas = list(key) if isinstance(key, bytes) else [0 if i == key else 255 for i in range(4)]
    expected = over_white(colours[indices], np.array(alphas)[indices])
    assert np.abs(rgb(path) - expected).max() <= 1


def test_a_transparent_colour_is_white(tmp_path: Path) -> None:
    pixels = COLOUR.copy()
    pixels[2, 3] = 1, 2, 3
    path = save(tmp_path / "a.png", Image.fromarray(pixels), transparency=(1, 2, 3))
    pixels[2, 3] = 255
    assert np.array_equal(rgb(path), pixels)


@pytest.mark.parametrize("suffix", ["png", "tiff", "bmp", "gif"])
def test_one_bit(tmp_path: Path, suffix: str) -> None:
    bits = GREY > 127
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(bits))
    assert np.array_equal(decode_image(path, 1, None)[0], bits * 255)


@pytest.mark.parametrize("channels", [1, 3])
def test_cmyk(tmp_path: Path, channels: int) -> None:
    white, cyan = (0, 0, 0, 0), (255, 0, 0, 0)
    image = Image.new("CMYK", (32, 16), white)
    image.paste(cyan, (16, 0, 32, 16))
    for path in (save(tmp_path / "a.tiff", image), save(tmp_path / "a.jpg", image, quality=100)):
        pixels = decode_image(path, channels, None)
        assert pixels.shape == (channels, 16, 32)
        assert pixels[:, 8, 4].min() > 250
        assert pixels[0, 8, 28] < (10 if channels == 3 else 200)


@pytest.mark.parametrize("animated", ["gif", "webp", "png"])
def test_the_first_frame_is_taken(tmp_path: Path, animated: str) -> None:
    frames = [Image.new("RGB", (5, 6), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    options = {"save_all": True, "append_images": frames[1:], "lossless": True}
    path = save(tmp_path / f"a.{animated}", frames[0], **options)
    assert (rgb(path) == [255, 0, 0]).all()


def test_the_first_picture_of_several_in_a_jpeg_is_taken(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (16, 16), colour) for colour in ("red", "blue"))
    path = save(tmp_path / "a.jpg", first, format="MPO", save_all=True, append_images=[second])
    assert np.abs(rgb(path) - [255, 0, 0]).max() <= 2


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [(s, k) for s in ("png", "tiff") for k in ("L", "I;16", "RGB", "RGBA")] + [("webp", "RGB")],
)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int, kind: str, suffix: str) -> None:
    """Orientation k says how the stored rows and columns relate to what was seen."""
    seen = COLOUR if kind.startswith("RGB") else np.stack([GREY] * 3, axis=-1)
    stored = {
        1: seen,
        2: seen[:, ::-1],
        3: seen[::-1, ::-1],
        4: seen[::-1],
        5: seen.transpose(1, 0, 2),
        6: np.rot90(seen, 1),
        7: seen[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(seen, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    if kind == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = image.convert(kind)
    path = save(tmp_path / f"a.{suffix}", image, exif=exif, lossless=True)
    assert np.array_equal(rgb(path), seen)


@pytest.mark.parametrize(
    ("size", "target", "resized", "crop"),
    [
        ((40, 20), 20, (40, 20), (10, 0, 30, 20)),
        ((40, 20), 10, (20, 10), (5, 0, 15, 10)),
        ((20, 40), 10, (10, 20), (0, 5, 10, 15)),
        ((40, 20), 30, (60, 30), (15, 0, 45, 30)),
        ((20, 20), 20, (20, 20), (0, 0, 20, 20)),
    ],
)
def test_the_shorter_side_is_resized_and_the_centre_cropped(
    tmp_path: Path,
    size: tuple[int, int],
    target: int,
    resized: tuple[int, int],
    crop: tuple[int, int, int, int],
) -> None:
    image = Image.fromarray(RANDOM.integers(0, 256, (size[1], size[0]), dtype=np.uint8))
    expected = np.asarray(image.resize(resized, Image.Resampling.LANCZOS).crop(crop), dtype=int)
    pixels = decode_image(save(tmp_path / "a.png", image), 1, target)
    assert np.abs(pixels[0] - expected).max() <= 2  # rounded twice on the way


def test_resizing_is_antialiased(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    path = save(tmp_path / "a.png", Image.fromarray(stripes))
    assert np.abs(decode_image(path, 1, 8)[0].astype(int) - 128).max() < 20


def test_transparency_is_resolved_before_resizing(tmp_path: Path) -> None:
    """Black under full transparency must not darken the edge."""
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[:, :8] = 255
    path = save(tmp_path / "a.png", Image.fromarray(pixels))
    assert decode_image(path, 3, 5).min() >= 254


def test_the_suffix_need_not_be_right(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(COLOUR).save(path, format="PNG")
    assert np.array_equal(rgb(path), COLOUR)


def test_other_formats_are_refused_whatever_their_suffix(tmp_path: Path) -> None:
    """An EPS file would be handed to an interpreter of PostScript."""
    path = tmp_path / "a.png"
    Image.fromarray(COLOUR).save(path, format="EPS")
    with pytest.raises(UnreadableImage, match="not an image in any of the formats PNG, JPEG"):
        decode_image(path, 3, None)


@pytest.mark.filterwarnings("ignore:Truncated File Read")  # Pillow, before it raises
@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp", "bmp", "tiff"])
def test_truncation_is_found(tmp_path: Path, suffix: str) -> None:
    buffer = io.BytesIO()
    noise = Image.fromarray(RANDOM.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    noise.save(buffer, format={"jpg": "JPEG"}.get(suffix, suffix))
    path = tmp_path / f"a.{suffix}"
    for share in (0.0, 0.01, 0.5, 0.9):
        path.write_bytes(buffer.getvalue()[: int(share * len(buffer.getvalue()))])
        with pytest.raises(UnreadableImage):
            decode_image(path, 3, None)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("limit", [25, 10])  # Pillow warns at the first and raises at the second
def test_a_decompression_bomb_is_refused(
    tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(COLOUR))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(UnreadableImage, match="exceed"):
        decode_image(path, 3, None)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 20_000, 100_000])
def test_a_small_file_of_a_huge_picture_costs_nothing(tmp_path: Path, side: int) -> None:
    """All black, of one bit: a thousandth of its pixels in bytes."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + name
            + content
            + struct.pack(">I", zlib.crc32(name + content))
        )

    packer, row = zlib.compressobj(9), bytes(1 + (side + 7) // 8)
    rows = min(side, 20_000)
    pixels = b"".join(packer.compress(row) for _ in range(rows)) + packer.flush()
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
        + chunk(b"IDAT", pixels)
        + chunk(b"IEND", b"")
    )
    assert path.stat().st_size < side * side / 1000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnreadableImage, match="exceed"):
        decode_image(path, 3, None)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**16  # KiB


@pytest.fixture
def photograph() -> Image.Image:
    return Image.fromarray(load_sample_image("china.jpg"))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("orientation", [1, 6])
def test_draft_mode_is_almost_full_decoding(
    tmp_path: Path, photograph: Image.Image, channels: int, orientation: int
) -> None:
    """640 × 427 pixels, read at a quarter or a half of that on the way."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.jpg", photograph, quality=92, exif=exif)
    for size in (40, 100):
        full = decode_image(path, channels, size)
        draft = decode_image(path, channels, size, draft=True)
        error = np.abs(draft.astype(int) - full)
        assert draft.shape == full.shape and 0 < error.mean() < 3 and error.max() < 50


def test_draft_mode_leaves_alone_what_it_cannot_halve(
    tmp_path: Path, photograph: Image.Image
) -> None:
    """Less than four times the size wanted, no size wanted, and other formats."""
    path = save(tmp_path / "a.jpg", photograph, quality=92)
    for size in (107, 200, 600, None):
        assert np.array_equal(decode_image(path, 3, size), decode_image(path, 3, size, draft=True))
    path = save(tmp_path / "a.png", photograph)
    assert np.array_equal(decode_image(path, 3, 32), decode_image(path, 3, 32, draft=True))


def test_draft_mode_does_not_let_a_bomb_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the size in the header, not by that it would be decoded at."""
    path = save(tmp_path / "a.jpg", Image.new("RGB", (800, 800)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400_000)
    with pytest.raises(UnreadableImage, match="800x800 pixels exceed"):
        decode_image(path, 3, 16, draft=True)
