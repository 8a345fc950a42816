"""The line that says what was understood of the data."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from energydiff.data import Arrays, Digits, Folder, understood

NAMES = [f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(12)]


def test_counts_shape_range_and_classes() -> None:
    splits = Digits(labels=True).open()
    text = understood(splits)
    assert text.startswith(
        "Data: 1,499 samples to train on and 298 held out, 1 channel of 8 × 8 pixels, 0 to 16 read"
        " as -1 to 1; 10 classes: 0 (144), 1 (148), "
    )
    assert "\n" not in text and "more" not in text
    assert "class" not in understood(Digits().open())


def test_that_nothing_is_held_out_is_said() -> None:
    text = understood(Digits(held_out=0).open())
    assert text.startswith("Data: 1,797 samples to train on and none held out to validate on, 1 ")


def test_vectors_are_numbers(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.linspace(-2, 2, 80, dtype=np.float32).reshape(40, 2))
    text = understood(Arrays(tmp_path / "x.npy", value_range=(-2, 2)).open())
    assert ", 2 numbers each, -2 to 2 read as -1 to 1." in text


def test_many_classes_are_bounded_and_empty_ones_named(make_images: Callable[..., Path]) -> None:
    names = [f"c{kind:02d}/{i}.png" for kind in range(30) for i in range(4)]
    splits = Folder(make_images(names), labels=True, held_out=0.5).open()
    counts = np.bincount(splits.train.labels, minlength=30)
    text = understood(splits)
    assert f"; 30 classes: c00 ({counts[0]}), c01 ({counts[1]}), " in text
    assert f", 20 more ({counts[10:].min()} to {counts[10:].max()} each)" in text
    empty = [f"c{kind:02d}" for kind in np.flatnonzero(counts == 0)]
    assert empty and f"; none to train on of {', '.join(empty)};" in text


def test_what_is_not_read_is_told(make_images: Callable[..., Path]) -> None:
    root = make_images(NAMES)
    for name in ("a.PPM", "cat/b.ppm", "dog/c.avif", "LICENSE", ".hidden.jfif"):
        (root / name).touch()
    text = understood(Folder(root).open())
    assert text.endswith("; files not read: 2 .ppm, 1 without a suffix, 1 .avif.")
    assert "; levels 0 to 255 in use;" in text and "jfif" not in text
    (root / "cat/b.png").write_bytes(b"broken")
    with pytest.warns(UserWarning):
        text = understood(Folder(root, on_error="skip", max_skipped=0.1).open())
    assert "; left out as broken: 1;" in text


@pytest.mark.parametrize(
    ("labels", "said"), [(True, "as classes, not as parts"), (False, "as one set, and split anew")]
)
def test_folders_of_parts_are_remarked_on(
    make_images: Callable[..., Path], labels: bool, said: str
) -> None:
    names = [f"{part}/cat/{i}.png" for part in ("Train", "val") for i in range(12)]
    root = make_images(names)
    assert f"the folders Train and val are read {said} (data.source.root may name" in understood(
        Folder(root, labels=labels).open()
    )
    assert "parts" not in understood(Folder(root / "Train", labels=labels).open())
