"""References: the features of the uint8 images, remembered with all they depend on."""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image

from energydiff.data import Arrays
from energydiff.errors import UserError
from energydiff.evaluation import (
    gaussian_statistics,
    image_batches,
    open_images,
    reference,
    reference_features,
)

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture
def source(labelled):
    return labelled.held_out


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ENERGYDIFF_CACHE", str(tmp_path / "default"))
    return tmp_path / "default"


@pytest.fixture
def calls(digits_extractor, monkeypatch):
    """How many images the extractor has seen."""
    seen = []
    extract = digits_extractor.extract
    monkeypatch.setattr(
        digits_extractor, "extract", lambda images: seen.append(len(images)) or extract(images)
    )
    return seen


def test_features_are_those_of_the_quantised_images(source, digits_extractor, tmp_path):
    images = torch.cat([images for images, _ in image_batches(source, "")])
    assert images.dtype == torch.uint8 and images.shape == (len(source), 1, 8, 8)
    assert images.max() == 255 and images[:, 0, 0, 0].float().mean() < 1  # 0..16 is shown 0..255
    got = reference_features(source, digits_extractor, cache=tmp_path, batch_size=50)
    assert got.digest == hashlib.sha256(images.numpy().tobytes()).hexdigest()
    assert (got.count, got.shape) == (len(source), (1, 8, 8))
    want = digits_extractor.features(digits_extractor(images))
    assert got.features.dtype == torch.float32
    torch.testing.assert_close(got.features, want, rtol=1e-3, atol=1e-3)
    for mine, theirs in zip((got.mean, got.cov), gaussian_statistics(got.features), strict=True):
        assert torch.equal(mine, theirs)


def test_is_remembered(source, digits_extractor, calls, own_cache):
    first = reference_features(source, digits_extractor)
    assert sum(calls) == len(source) and len(list(own_cache.glob("reference-*.npz"))) == 1
    again = reference_features(source, digits_extractor)
    assert sum(calls) == len(source)
    for name in ("features", "mean", "cov"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert (first.digest, first.count, first.shape) == (again.digest, again.count, again.shape)


def test_files_of_other_things_are_made_again(
    source, digits_extractor, calls, tmp_path, monkeypatch
):
    def measured():
        """Images the extractor saw while the reference was opened."""
        calls.clear()
        reference_features(source, digits_extractor, cache=tmp_path)
        return sum(calls)

    assert measured() == len(source)
    (file,) = tmp_path.glob("*.npz")
    content = file.read_bytes()
    for damaged in (content[:-100], b"", content[:200] + b"\xff" * 64 + content[264:]):
        file.write_bytes(damaged)
        assert measured() == len(source) and measured() == 0
    with np.load(file) as archive:
        arrays = dict(archive)
    np.savez(file, **arrays | {"features": arrays["features"][1:]})
    assert measured() == len(source)
    with monkeypatch.context() as patch:
        patch.setattr(reference, "versions", lambda: {"torch": "0"})
        assert measured() == len(source)
    with monkeypatch.context() as patch:
        patch.setattr(digits_extractor, "resize", "to 299")
        assert measured() == len(source)
    with monkeypatch.context() as patch:
        patch.setattr(digits_extractor, "digest", 64 * "0")
        assert measured() == len(source)


def test_other_images_are_another_reference(labelled, digits_extractor, tmp_path):
    digests = {
        reference_features(part, digits_extractor, cache=tmp_path).digest
        for part in (
            labelled.held_out,
            labelled.held_out.select(np.arange(50)),
            labelled.held_out.select(np.arange(50)[::-1]),
        )
    }
    assert len(digests) == 3


def test_vectors_are_refused(digits_extractor, tmp_path):
    np.save(tmp_path / "vectors.npy", np.random.default_rng(0).normal(size=(40, 2)))
    vectors = Arrays(tmp_path / "vectors.npy").open().train
    with pytest.raises(UserError, match=r"only images .* samples of shape \(2,\)"):
        reference_features(vectors, digits_extractor)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 8, 8), "the reference has 1 channel, the samples have 3"),
        ((1, 9, 8), "images of 8x8 pixels, the samples have 9x8"),
        ((64,), "only images"),
    ],
)
def test_samples_of_another_shape_are_refused(source, digits_extractor, shape, message):
    measured = reference_features(source, digits_extractor)
    measured.require_shape((1, 8, 8))
    with pytest.raises(UserError, match=message):
        measured.require_shape(shape)


@pytest.fixture
def folder(tmp_path):
    """Six grey images and a function that adds others."""
    root = tmp_path / "samples"
    root.mkdir()

    def add(name, mode="L"):
        shape = (8, 8) if mode == "L" else (8, 8, 3)
        pixels = np.random.default_rng(len(name)).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(root / name)

    for i in range(6):
        add(f"{i:06d}.png")
    return root, add


def test_a_folder_is_measured_whole_and_as_it_is(folder):
    root, _ = folder
    grey, colour = open_images(root, 1), open_images(root, 3)
    assert (grey.shape, colour.shape) == ((1, 8, 8), (3, 8, 8))
    assert list(grey.names) == [f"{i:06d}.png" for i in range(6)]
    (pixels, _) = next(iter(image_batches(grey, "")))
    assert np.array_equal(pixels[4, 0], np.asarray(Image.open(root / "000004.png")))


def test_samples_of_nearly_one_grey_are_measured_with_a_warning(tmp_path):
    """So a poor model looks; its samples are not wrong data."""
    for i in range(6):
        Image.new("L", (8, 8), 120 + i).save(tmp_path / f"{i}.png")
    with pytest.warns(UserWarning, match="use only the levels 120 to 125"):
        assert len(open_images(tmp_path, 3)) == 6


def test_a_folder_of_other_images_is_refused(folder):
    root, add = folder
    add("000000.png", "RGB")
    with pytest.raises(UserError, match="have 3 channels, the reference has 1"):
        open_images(root, 1)
    (root / "000003.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"000003\.png cannot be read"):
        open_images(root, 3)
    with pytest.raises(UserError, match="does not exist"):
        open_images(root / "nowhere", 3)
