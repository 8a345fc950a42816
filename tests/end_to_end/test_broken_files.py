"""A file that breaks while a run trains on it: one sentence, or another image in its place."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from energydiff.training import DiffusionData

COUNT = 40


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(COUNT):
        Image.fromarray(random.integers(0, 256, (4, 4), np.uint8)).save(folder / f"{i:02d}.png")
    return folder


@pytest.fixture
def fit(
    door: Callable[..., Any], root: Path, tiny_mlp: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Trains on the folder, in which a training image breaks after the check."""
    monkeypatch.setenv("ENERGYDIFF_CACHE", str(root.parent / "cache"))
    loader = DiffusionData.train_dataloader

    def breaking(self: DiffusionData) -> Any:
        (root / "07.png").write_bytes(b"gone bad")
        return loader(self)

    monkeypatch.setattr(DiffusionData, "train_dataloader", breaking)

    def run(name: str, images: int, *options: object) -> Any:
        arguments = ["fit", "--config", tiny_mlp, "--trainer.default_root_dir", root.parent / name]
        arguments += ["--data.source=Folder", f"--data.source.root={root}"]
        arguments += ["--data.source.channels=1", "--finish.evaluations=0"]
        arguments += ["--model.schedule=constant", f"--model.total_images={images}"]
        return door(*arguments, "--monitor.every_images=4096", *options)

    return run


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_breaks_is_one_sentence(fit: Callable[..., Any], workers: int) -> None:
    done = fit("run", 64, f"--data.num_workers={workers}")
    assert "07.png could be read before but not now (not an image" in done.sentence, done.err
    assert done.sentence.endswith("restore it.")


def test_a_file_that_may_be_left_out_stops_no_run_and_resuming_is_bitwise(
    fit: Callable[..., Any], root: Path
) -> None:
    skip = ["--data.source.on_error=skip", "--data.source.max_skipped=0.1"]
    intact = (root / "07.png").read_bytes()
    done = fit("whole", 128, *skip, "--data.num_workers=0")
    assert done.code == 0, done.err
    warned = r"^warning: .*07\.png could .*The next image takes its place\.$"
    assert re.search(warned, done.err, re.MULTILINE), done.err
    (root / "07.png").write_bytes(intact)
    for images, workers in ((64, "2"), (128, "null")):  # then, the check leaves the file out
        done = fit("parts", images, *skip, f"--data.num_workers={workers}")
        assert done.code == 0, done.err
        assert "warning: " in done.err and ".py:" not in done.err
    one, other = (
        torch.load(root.parent / name / "checkpoints" / "last.ckpt", weights_only=True)
        for name in ("whole", "parts")
    )
    assert one["global_step"] == other["global_step"] == 4
    for name, weight in one["current_model_state"].items():
        assert torch.equal(weight, other["current_model_state"][name]), name
