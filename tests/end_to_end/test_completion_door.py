"""``energydiff complete``: a run that is resumed, its completions, and mistakes as sentences."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from energydiff.completion.training import open_completion


@pytest.fixture
def fit(door):
    def fit(run: Path, images: int) -> Path:
        done = door(
            *("complete", "fit", "--config", "configs/digits/completion.yaml"),
            *("--model.schedule", "constant", "--model.total_images", images),
            *("--val_every_images", 128, "--trainer.default_root_dir", run),
        )
        assert done.code == 0, done.err
        return run

    return fit


def test_completions_of_held_out_images(fit, door, tmp_path: Path) -> None:
    run = fit(tmp_path / "run", 128)
    done = door("complete", run, "--shares", "[0.25, 0.5]", "--out", tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "completion.png").stat().st_size > 10_000
    certificate = json.loads((tmp_path / "certificate.json").read_text())
    assert certificate["holds"] and certificate["claim"] == "enforced"
    assert certificate["nfe"] == 5 and certificate["settings"]["shares"] == [0.25, 0.5]
    assert "certificate holds: E fell, or stayed within rounding, at every step" in " ".join(
        done.out.split()
    )
    errors = json.loads((tmp_path / "errors.json").read_text())
    assert len(errors) == 2 * 3
    with np.load(tmp_path / "completions.npz") as arrays:
        images, filled, missing = (arrays[n] for n in ("images", "filled_0.5", "missing_0.5"))
        assert arrays["energy"].shape == (5, 2 * len(images))
    assert (filled[~missing] == images[~missing]).all()
    assert missing.mean() == 0.5
    mean_squared = ((filled - images) ** 2 * missing).sum((1, 2, 3)) / missing.sum((1, 2, 3))
    row = next(r for r in errors if r["share"] == 0.5 and r["filling"] == "energy block")
    assert row["mean squared error"] == pytest.approx(float(mean_squared.mean()), rel=1e-5)


def test_resumed_is_uninterrupted(fit, tmp_path: Path) -> None:
    """Masks are functions of (seed, image number), like everything else in the stream."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    fit(whole, 256)
    fit(parts, 128)
    fit(parts, 256)
    one, other = (open_completion(run)[0].state_dict() for run in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_mistakes_are_sentences(door, tmp_path: Path) -> None:
    assert "does not exist" in door("complete", tmp_path).sentence
    assert "between 0 and 1" in door("complete", tmp_path, "--shares", "[1.5]").sentence
