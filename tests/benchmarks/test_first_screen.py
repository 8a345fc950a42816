"""The picture at the head of README is drawn, of any model with an energy."""

import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.first_screen import main

MODEL = Path(__file__).parents[2] / "pretrained/digits_energy_unet"


def test_the_picture_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "samples.png"
    monkeypatch.setattr(
        sys, "argv", ["first_screen", str(MODEL), "--samples", "8", "--out", str(picture)]
    )
    main()
    assert Image.open(picture).width > 1000
    assert "of 8 samples" in capsys.readouterr().out
