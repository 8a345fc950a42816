"""Every test has its own cache, and a folder of images if it wants one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "cache"
    monkeypatch.setenv("ENERGYDIFF_CACHE", str(cache))
    return cache


@pytest.fixture
def make_images(tmp_path: Path) -> Callable[..., Path]:
    """Writes random RGB images of one size under these names, and returns their folder."""

    def make(names: list[str], size: tuple[int, int] = (12, 10)) -> Path:
        random = np.random.default_rng(0)
        for name in names:
            path = tmp_path / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
        return tmp_path / "images"

    return make
