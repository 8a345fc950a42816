from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from energydiff.data import Digits, Folder, Normalization, image_grid, write_images
from energydiff.errors import UserError

BYTES = Normalization(0, 255)


@pytest.mark.parametrize("channels", [1, 3])
def test_written_images_are_read_back(tmp_path: Path, channels: int) -> None:
    raw = torch.randint(0, 256, (40, channels, 6, 5), dtype=torch.uint8)
    paths = write_images(BYTES.encode(raw), tmp_path / "new" / "images", BYTES, start=7)
    assert [path.name for path in paths[:2]] == ["000007.png", "000008.png"]
    assert Image.open(paths[0]).mode == {1: "L", 3: "RGB"}[channels]
    for part in Folder(tmp_path / "new", channels=channels).open():
        for name, (sample, _) in zip(part.names, part, strict=True):
            assert torch.equal(sample, raw[int(Path(name).stem) - 7])


def test_digits_are_shown_from_black_to_white(tmp_path: Path) -> None:
    digits = Digits().open().train
    x = digits.normalization.encode(torch.stack([digits[i][0] for i in range(5)]))
    pixels = np.asarray(image_grid(x, digits.normalization))
    assert pixels.shape == (2 * 64 + 2, 3 * 64 + 2 * 2)
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert np.array_equal(pixels[:64:8, :64:8], digits.normalization.to_uint8(x)[0, 0])
    assert np.array_equal(pixels[7:64:8, 7:64:8], pixels[:64:8, :64:8])  # nearest neighbour
    assert (pixels[66:, 132:] == 255).all()  # the empty place is white


def test_grid_columns_and_large_images() -> None:
    grid = image_grid(torch.zeros(5, 3, 70, 80), BYTES, columns=5, gap=1)
    assert grid.mode == "RGB"
    assert grid.size == (5 * 81 - 1, 70)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3, 2), r"shape \(2,\) are not images"),
        (torch.zeros(3, 4, 8, 8), r"shape \(4, 8, 8\) are not images"),
        (torch.tensor([0.0, 0.0, torch.nan]).view(3, 1, 1, 1), "Sample 2 holds values that are"),
    ],
)
def test_what_is_not_an_image_is_refused(tmp_path: Path, x: torch.Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        write_images(x, tmp_path, BYTES)
    with pytest.raises(UserError, match=message):
        image_grid(x, BYTES)


def test_an_empty_grid_is_refused() -> None:
    with pytest.raises(UserError, match="no samples to draw"):
        image_grid(torch.zeros(0, 1, 8, 8), BYTES)
