"""An animation of a landscape: as many frames as noise levels, small, the last one held."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from energydiff.energies import EmpiricalData
from energydiff.errors import UserError
from energydiff.landscape.surface import Surface
from energydiff.report.landscape import landscape_animation

TWO = torch.tensor([[-1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
WINDOW = (-2.0, 2.0, -1.0, 1.0)


def test_a_frame_for_each_noise_level(tmp_path: Path) -> None:
    sigmas = torch.tensor([1.4, 0.9, 0.5], dtype=torch.float64)
    landscape_animation(
        Surface(EmpiricalData(TWO)), sigmas, tmp_path / "two.gif", WINDOW, seeds=range(8)
    )
    with Image.open(tmp_path / "two.gif") as movie:
        assert (movie.n_frames, movie.width) == (3, 640)
        frames, pauses = [], []
        for i in range(3):
            movie.seek(i)
            frames.append(np.asarray(movie.convert("RGB")))
            pauses.append(movie.info["duration"])
    assert all((a != b).any() for a, b in pairwise(frames))
    assert pauses[0] == pauses[1] < pauses[2]


def test_the_animation_of_the_readme_is_small_and_whole() -> None:
    file = Path(__file__).parents[3] / "docs/images/landscape.gif"
    assert file.stat().st_size < 2_000_000
    with Image.open(file) as movie:
        assert (movie.n_frames, movie.width) == (60, 640)


def test_only_gifs_are_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.gif"):
        landscape_animation(
            Surface(EmpiricalData(TWO)), torch.tensor([1.0]), tmp_path / "two.png", WINDOW
        )
