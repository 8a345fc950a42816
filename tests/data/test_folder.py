import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from energydiff.data import Folder, Splits
from energydiff.data.folder import FolderSource
from energydiff.data.tree import is_image, list_files
from energydiff.errors import UserError
from energydiff.training.stream import TrainingStream

NAMES = [f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(12)]


def test_samples_are_decoded_on_access(make_images: Callable[..., Path]) -> None:
    root = make_images(NAMES)
    train, held_out = Folder(root).open()
    assert sorted([*train.names, *held_out.names]) == sorted(NAMES)
    assert train.shape == (3, 10, 12)
    for name, (sample, label) in zip(train.names, train, strict=True):
        assert sample.dtype == torch.uint8
        expected = np.asarray(Image.open(root / name)).transpose(2, 0, 1)
        assert np.array_equal(sample.numpy(), expected)
        assert label == -1
    (root / train.names[0]).write_bytes(b"gone bad")
    with pytest.raises(UserError, match=rf"{train.names[0]} could be read before but not now"):
        train[0]


def test_size_and_channels(make_images: Callable[..., Path]) -> None:
    train, held_out = Folder(make_images(NAMES), image_size=7, channels=1).open()
    assert train.shape == train[0][0].shape == held_out[0][0].shape == (1, 7, 7)


def test_the_class_is_the_first_folder(make_images: Callable[..., Path]) -> None:
    root = make_images([*NAMES, "dog/big/red.png"])
    for part in Folder(root, labels=True).open():
        assert part.classes == ("cat", "dog")
        for name, (_, label) in zip(part.names, part, strict=True):
            assert name.split("/")[0] == part.classes[label]


def test_folders_that_are_numbers_are_in_their_order(make_images: Callable[..., Path]) -> None:
    names = [f"{kind}/{i}.png" for kind in (0, 1, 2, 10, 11) for i in range(6)]
    for part in Folder(make_images(names), labels=True).open():
        assert part.classes == ("0", "1", "2", "10", "11")
        for name, (_, label) in zip(part.names, part, strict=True):
            assert name.split("/")[0] == part.classes[label]


def test_a_shuffle_goes_by_seed_and_name(make_images: Callable[..., Path]) -> None:
    before = Folder(make_images(NAMES)).whole()
    order = list(before.shuffled(0).names)
    assert sorted(order) == sorted(NAMES) != order
    assert order == before.shuffled(0).names != before.shuffled(1).names
    more = Folder(make_images(["bird/0.png"])).whole().shuffled(0).names
    assert [name for name in more if name != "bird/0.png"] == order


def test_an_image_without_a_class_is_named(make_images: Callable[..., Path]) -> None:
    root = make_images([*NAMES, "stray.png"])
    with pytest.raises(UserError, match=r"stray\.png lies in no class folder"):
        Folder(root, labels=True).open()


def test_variants_of_a_picture_share_a_side(make_images: Callable[..., Path]) -> None:
    names = [f"cat/{i}{tail}" for i in range(30) for tail in (".png", "_crop1.png", "_crop22.bmp")]
    root = make_images(names)
    plain, grouped = (Folder(root, variants=v).open() for v in (None, r"_crop\d+"))

    def sides(splits: Splits) -> list[set[str]]:
        return [{name.split(".")[0].split("_")[0] for name in part.names} for part in splits]

    assert set.intersection(*sides(plain))  # each name by itself lands anywhere
    assert not set.intersection(*sides(grouped))
    assert sum(map(len, grouped)) == len(names) and len(grouped.held_out) % 3 == 0
    with pytest.raises(UserError, match=r"variants is '\(', no regular expression"):
        Folder(root, variants="(").open()


def test_a_split_survives_new_images(make_images: Callable[..., Path]) -> None:
    before = Folder(make_images(NAMES)).open().held_out.names
    more = [f"bird/{i}.png" for i in range(20)]
    after = Folder(make_images(more)).open().held_out.names
    assert set(after) & set(NAMES) == set(before)


def skipping(root: Path) -> FolderSource:
    """The training part of a folder of which two in 24 may be left out."""
    train = Folder(root, labels=True, on_error="skip", max_skipped=0.1).open().train
    assert isinstance(train, FolderSource)
    return train


def test_the_next_image_takes_the_place_of_a_broken_one(
    make_images: Callable[..., Path],
) -> None:
    root = make_images(NAMES)
    train = skipping(root)
    last = len(train) - 1
    expected, label = train[1]
    for i in (0, last):  # after the last comes the first, which is broken, too
        (root / train.names[i]).unlink()
        with pytest.warns(UserWarning, match=rf"{train.names[i]} could .*takes its place") as told:
            sample, found = train[i]
        assert torch.equal(sample, expected) and found == label
        assert len(told) == 1
    with warnings.catch_warnings():  # each is told of once, by all parts of the folder
        warnings.simplefilter("error")
        assert len(list(train.spread(last + 1))) == last + 1
    (root / train.names[5]).write_bytes(b"gone bad")
    with pytest.raises(UserError, match=rf"{train.names[5]} could be read before but not now"):
        train[5]


@pytest.mark.parametrize("which", [[3], [3, 4], [0, -1]])
def test_the_stream_is_the_same_after_an_image_broke(
    make_images: Callable[..., Path], which: list[int]
) -> None:
    """In a run on the way, and in the same run when it is started again."""
    root = make_images(NAMES)
    before = skipping(root)
    for i in which:
        (root / before.names[i]).write_bytes(b"gone bad")
    with pytest.warns(UserWarning):
        after = skipping(root)
        assert len(after) == len(before) - len(which)
        assert len(after.places) == len(before.places)
        for count in range(len(before)):
            one, other = (TrainingStream(source, 0)[count] for source in (before, after))
            assert torch.equal(one["raw"], other["raw"])
            assert torch.equal(one["label"], other["label"])


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_a_sentence_crosses_from_a_worker(make_images: Callable[..., Path], context: str) -> None:
    root = make_images(NAMES)
    train, _ = Folder(root).open()
    (root / train.names[2]).unlink()
    with pytest.raises(UserError) as there:
        train[2]
    loader = DataLoader(train, batch_size=6, num_workers=1, multiprocessing_context=context)
    with pytest.raises(UserError) as here:
        next(iter(loader))
    assert str(here.value) == str(there.value)
    assert type(here.value) is type(there.value)


@pytest.mark.parametrize("context", [None, "spawn"])
def test_workers_of_a_loader_decode(make_images: Callable[..., Path], context: str | None) -> None:
    train, _ = Folder(make_images(NAMES), labels=True).open()
    loader = DataLoader(train, batch_size=6, num_workers=1, multiprocessing_context=context)
    x, labels = next(iter(loader))
    assert x.shape == (6, 3, 10, 12)
    assert labels.tolist() == [train[i][1] for i in range(6)]
    assert torch.equal(x[2], train[2][0])


def test_a_relative_root_outlives_a_change_of_folder(
    make_images: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_images(NAMES)
    monkeypatch.chdir(root.parent)
    train, _ = Folder(root.name).open()
    monkeypatch.chdir(root)
    assert pickle.loads(pickle.dumps(train))[0][0].shape == (3, 10, 12)


def test_what_counts_as_an_image(tmp_path: Path) -> None:
    listed = ["a.PNG", "b.Jpeg", "deep/er/c.webp", "d.gif", "e.bmp", "f.tif", "g.TIFF", "h.jpg"]
    for name in [*listed, ".hidden.png", ".cache/x.png", "__MACOSX/._a.png", "notes.txt", "png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list(filter(is_image, list_files(tmp_path))) == sorted(listed)


def test_linked_folders_are_entered_once(tmp_path: Path) -> None:
    (tmp_path / "root" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.png").touch()
    (tmp_path / "root" / "deep" / "a.png").touch()
    (tmp_path / "root" / "loop").symlink_to(tmp_path / "root", target_is_directory=True)
    (tmp_path / "root" / "deep" / "up").symlink_to("..", target_is_directory=True)
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert list_files(tmp_path / "root") == ["deep/a.png", "linked/b.png"]


@pytest.mark.parametrize("kind", ["dangling", "loop", "pipe"])
def test_what_only_looks_like_an_image_is_named(
    make_images: Callable[..., Path], kind: str
) -> None:
    root = make_images(NAMES)
    if kind == "pipe":
        os.mkfifo(root / "x.png")  # opening it would wait for ever
    else:
        (root / "x.png").symlink_to("x.png" if kind == "loop" else "nothing")
    with pytest.raises(UserError, match=r"x\.png cannot be read"):
        Folder(root).open()


def test_a_link_to_what_is_no_image_gives_none_of_it(
    make_images: Callable[..., Path], tmp_path: Path
) -> None:
    """Links are followed, also out of the folder: to images."""
    root, secret = make_images(NAMES), tmp_path / "secret"
    secret.write_text("a password")
    (root / "x.png").symlink_to(secret)
    with pytest.raises(UserError, match=r"x\.png cannot be read.*not an image") as told:
        Folder(root).open()
    assert "password" not in str(told.value)


def test_different_sizes_need_an_image_size(make_images: Callable[..., Path]) -> None:
    make_images(NAMES)
    root = make_images(["dog/odd.png"], size=(9, 4))
    with pytest.raises(UserError, match=r"cat/0\.png is 12x10, dog/odd\.png is 9x4.*image_size"):
        Folder(root).open()
    assert Folder(root, image_size=8).open().train.shape == (3, 8, 8)


def test_orientation_counts_for_the_size(make_images: Callable[..., Path]) -> None:
    root = make_images(NAMES)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (10, 12)).save(root / "turned.png", exif=exif)
    assert Folder(root).open().train.shape == (3, 10, 12)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ([], {}, "does not exist"),
        (["a.txt"], {}, r"holds no images: the suffixes read are \.bmp, \.gif"),
        (["a.png"], {}, "none of its 1 samples falls in the held-out part"),
        (NAMES, {"held_out": 1.0}, "data.source.held_out must lie between 0 and 1"),
        (NAMES, {"image_size": 0}, "data.source.image_size must be at least 1"),
    ],
)
def test_folders_that_are_refused(
    make_images: Callable[..., Path], tmp_path: Path, names: list[str], options: Any, message: str
) -> None:
    root = tmp_path / "images"
    if names == ["a.txt"]:
        root.mkdir()
        (root / "a.txt").touch()
    else:
        make_images(names)
    with pytest.raises(UserError, match=message):
        Folder(root, **options).open()


def test_a_file_is_no_folder(make_images: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r"0\.png is a file: set data\.source\.root to a folder"):
        Folder(make_images(NAMES) / "cat" / "0.png").open()


def test_a_folder_that_cannot_be_listed_is_named(
    make_images: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, scandir = make_images(NAMES), os.scandir

    def locked(path: Any) -> Any:
        if Path(path).name == "dog":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(UserError, match=r"dog cannot be listed \(Permission denied\)"):
        Folder(root).open()
