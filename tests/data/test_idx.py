import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from energydiff.data import Idx
from energydiff.errors import UserError

RANDOM = np.random.default_rng(0)
IMAGES = {
    part: RANDOM.integers(0, 256, (count, 6, 5), dtype=np.uint8)
    for part, count in (("train", 12), ("t10k", 4))
}
LABELS = {
    part: RANDOM.permutation(np.arange(len(images)) % 3).astype(np.uint8)
    for part, images in IMAGES.items()
}
FASHION = Path("/usr/share/datasets/fashion-mnist")


def idx(values: NDArray[np.uint8]) -> bytes:
    header = struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    return header + values.tobytes()


def write(folder: Path, *, zipped: bool = False, dotted: bool = False) -> Path:
    for values, kind in ((IMAGES, "images-idx3"), (LABELS, "labels-idx1")):
        for part in ("train", "t10k"):
            name = f"{part}-{kind}-ubyte".replace("-idx", ".idx" if dotted else "-idx")
            content = idx(values[part])
            path = folder / (name + ".gz" * zipped)
            path.write_bytes(gzip.compress(content) if zipped else content)
    return folder


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("dotted", [False, True])
def test_the_published_split_is_kept(tmp_path: Path, zipped: bool, dotted: bool) -> None:
    splits = Idx(write(tmp_path, zipped=zipped, dotted=dotted), labels=True).open()
    for part, source in zip(("train", "t10k"), splits, strict=True):
        assert source.shape == (1, 6, 5)
        assert source.classes == ("0", "1", "2")
        assert source.names[0] == f"{part}/000000"
        samples = torch.stack([sample for sample, _ in source])
        assert samples.dtype == torch.uint8
        assert np.array_equal(samples[:, 0].numpy(), IMAGES[part])
        assert [label for _, label in source] == LABELS[part].tolist()


def test_label_files_are_not_needed_without_labels(tmp_path: Path) -> None:
    write(tmp_path)
    for path in tmp_path.glob("*labels*"):
        path.unlink()
    assert Idx(tmp_path).open().train[0][1] == -1
    with pytest.raises(UserError, match="train-labels-idx1-ubyte"):
        Idx(tmp_path, labels=True).open()


def test_a_missing_file_is_named_with_its_publishers(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(UserError, match=r"t10k-images.*lecun.*zalandoresearch.*dataset-fashion"):
        Idx(tmp_path).open()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx(IMAGES["train"])[:-1], "announces 12 x 6 x 5 bytes but holds 359"),
        (idx(IMAGES["train"]) + b"x", "announces 12 x 6 x 5 bytes but holds 361"),
        (idx(IMAGES["train"][:0]), "announces 0 x 6 x 5 bytes"),
        (idx(LABELS["train"]), "is not an IDX file of bytes with 3 axes"),
        (b"<html>", "is not an IDX file"),
        (b"", "is not an IDX file"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (write(tmp_path) / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(UserError, match=rf"train-images-idx3-ubyte {message}"):
        Idx(tmp_path).open()


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, zipped=True) / "t10k-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[40] ^= 255
    for content in (whole[:-20], b"not gzip", bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"t10k-images-idx3-ubyte\.gz"):
            Idx(tmp_path).open()


def test_parts_must_match(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(LABELS["train"]))
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte holds 12 labels for 4 t10k"):
        Idx(tmp_path, labels=True).open()
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(IMAGES["t10k"][:, :5]))
    with pytest.raises(UserError, match=r"train images are \(6, 5\) but t10k images are \(5, 5\)"):
        Idx(tmp_path).open()


@pytest.mark.skipif(not FASHION.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist() -> None:
    train, held_out = Idx(FASHION, labels=True).open()
    assert (len(train), len(held_out)) == (60_000, 10_000)
    assert train.shape == (1, 28, 28)
    assert train.classes == tuple("0123456789")
    assert [train[i][1] for i in range(5)] == [9, 0, 0, 3, 0]
    assert [held_out[i][1] for i in range(5)] == [9, 2, 1, 1, 6]
    mean = sum(train[i][0].float().mean() for i in range(0, 60_000, 50)) / 1_200
    assert mean == pytest.approx(72.9, abs=2)  # .286 of 255, as published


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_file_that_unpacks_to_too_much_is_not_read(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("energydiff.data.idx.LARGEST", 1_000)
    content = bytes(10_000)
    packed = gzip.compress(content) if suffix else content
    (tmp_path / f"train-images-idx3-ubyte{suffix}").write_bytes(packed)
    with pytest.raises(UserError, match="holds more than 1,000 bytes"):
        Idx(tmp_path).open()
