"""From a folder to shards to a trained model, as a user goes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import energydiff


@pytest.fixture
def images(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for i in range(60):
        file = tmp_path / "images" / ("cat", "dog")[i % 2] / f"{i}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (80, 90, 3), np.uint8)).save(file)
    (tmp_path / "images" / "notes.txt").touch()
    return tmp_path / "images"


def test_shards_are_made_and_trained_on(images: Path, tiny_mlp: Path, tmp_path: Path, door) -> None:
    out, run = tmp_path / "shards", tmp_path / "run"
    convert = ["shards", images, "--out", out, "--image_size", 8, "--labels", "true"]
    convert += ["--draft", "true", "--per_shard", 25, "--workers", 0]
    for _ in range(2):
        done = door(*convert)
        assert done.code == 0 and f"{out} holds 60 images" in done.out, done.err
        assert "files not read: 1 .txt" in done.out
    fit = ["fit", "--config", tiny_mlp, "--trainer.default_root_dir", run]
    fit += ["--data.source", "WebDataset", "--data.source.root", out]
    fit += ["--data.source.labels", "true", "--data.num_workers", 0]
    done = door(*fit, "--model.total_images", 64)
    assert done.code == 0, done.err
    assert energydiff.open_model(run / "export").classes == ("cat", "dog")
    (out / "000001.tar").unlink()
    assert "000001.tar is missing" in door(*fit, "--model.total_images", 128).sentence


def test_mistakes_are_sentences(images: Path, tmp_path: Path, door) -> None:
    """With the names that options have here."""
    assert "nowhere does not exist" in door("shards", tmp_path / "nowhere").sentence
    convert = ["shards", images, "--out", tmp_path / "out"]
    assert "per_shard is 0" in door(*convert, "--per_shard", 0).sentence
    Image.new("RGB", (9, 9)).save(images / "cat" / "1.jpg")
    assert "of different sizes" in (said := door(*convert).sentence) and "set --image_size" in said
    (images / "cat" / "0.jpg").write_bytes(b"broken")
    assert "cat/0.jpg cannot be read" in (said := door(*convert).sentence)
    assert "or set --on_error to skip" in said and not (tmp_path / "out").exists()
