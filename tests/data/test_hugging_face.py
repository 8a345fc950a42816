"""Data sets saved by Hugging Face's ``datasets``, where the package is installed."""

import io
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from energydiff.data import HuggingFace
from energydiff.errors import UserError

datasets = pytest.importorskip("datasets")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

STORED = pa.struct({"bytes": pa.binary(), "path": pa.string()})

COUNT = 24
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 6, 5, 3), np.uint8)
KINDS = [("cat", "dog")[i % 2] for i in range(COUNT)]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is downloaded: a connection is an error that no reading survives."""

    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX:  # workers of a loader use those
            raise AssertionError(f"a connection to {address} was asked for")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)


def table(count: int = COUNT, image: str = "image", label: str = "label") -> Any:
    features = datasets.Features(
        {image: datasets.Image(), label: datasets.ClassLabel(names=["cat", "dog"])}
    )
    columns = {image: [Image.fromarray(p) for p in PIXELS[:count]], label: KINDS[:count]}
    return datasets.Dataset.from_dict(columns, features=features)


def saved(path: Path) -> Path:
    table().save_to_disk(str(path))
    return path


def parquet(path: Path) -> Path:
    path.mkdir()
    table().to_parquet(str(path / "train-00000-of-00001.parquet"))
    return path


def arrow(path: Path) -> Path:
    """The Arrow file inside a saved data set."""
    return next(saved(path).glob("*.arrow"))


@pytest.mark.parametrize("save", [saved, parquet, arrow])
def test_images_and_labels_are_read(save: Callable[[Path], Path], tmp_path: Path) -> None:
    splits = HuggingFace(save(tmp_path / "data"), labels=True).open()
    assert sum(map(len, splits)) == COUNT
    for part in splits:
        assert part.classes == ("cat", "dog")
        for name, (sample, label) in zip(part.names, part, strict=True):
            assert np.array_equal(sample.permute(1, 2, 0).numpy(), PIXELS[int(name)])
            assert part.classes[label] == KINDS[int(name)]


def test_columns_go_by_the_names_given(tmp_path: Path) -> None:
    table(image="picture", label="kind").save_to_disk(str(tmp_path / "data"))
    spec = HuggingFace(tmp_path / "data", image="picture", label="kind", labels=True, channels=1)
    assert spec.open().train.shape == (1, 6, 5)


@pytest.mark.parametrize("kind", ["saved", "parquet"])
def test_a_published_split_is_held_out_where_it_is_asked_for(tmp_path: Path, kind: str) -> None:
    both = datasets.DatasetDict(train=table(), test=table(9))
    if kind == "saved":
        both.save_to_disk(str(tmp_path / "data"))
    else:
        (tmp_path / "data" / "test").mkdir(parents=True)
        both["train"].to_parquet(str(tmp_path / "data" / "train.parquet"))
        both["test"].to_parquet(str(tmp_path / "data" / "test" / "0.parquet"))
    train, held_out = HuggingFace(tmp_path / "data", held_out_split="test", labels=True).open()
    assert (len(train), len(held_out)) == (COUNT, 9)
    assert torch.equal(train[3][0], held_out[3][0])
    assert [label for _, label in held_out] == [i % 2 for i in range(9)]
    assert sum(map(len, HuggingFace(tmp_path / "data").open())) == COUNT
    assert sum(map(len, HuggingFace(tmp_path / "data", split="test", held_out=0.5).open())) == 9


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    """Parquet is converted into the cache, by path, size and time."""
    root = parquet(tmp_path / "data")
    HuggingFace(root).open()
    table(15).to_parquet(str(root / "train-00000-of-00001.parquet"))
    assert sum(map(len, HuggingFace(root).open())) == 15
    assert (tmp_path / "cache" / "datasets").is_dir()


@pytest.mark.parametrize("dtype", ["uint8", "float32", "int32"])
@pytest.mark.parametrize("nested", [False, True])
def test_arrays_keep_their_type(tmp_path: Path, dtype: str, nested: bool) -> None:
    values = (np.arange(COUNT * 12) % 200).reshape(COUNT, 3, 4).astype(dtype)
    feature = datasets.Array2D((3, 4), dtype)
    if nested:
        feature = datasets.List(datasets.List(datasets.Value(dtype)))
    data = datasets.Dataset.from_dict(
        {"image": values.tolist()}, features=datasets.Features({"image": feature})
    )
    data.save_to_disk(str(tmp_path / "data"))
    if dtype != "uint8":
        with pytest.raises(UserError, match=r"not bytes.*set data\.source\.value_range"):
            HuggingFace(tmp_path / "data").open()
    train, _ = HuggingFace(tmp_path / "data", value_range=(0, 200)).open()
    sample = train[0][0]
    assert sample.dtype == (torch.uint8 if dtype == "uint8" else torch.float32)
    assert np.array_equal(sample[0].numpy(), values[int(train.names[0])])


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_of_a_loader_read_it(tmp_path: Path, context: str) -> None:
    train, _ = HuggingFace(saved(tmp_path / "data"), labels=True).open()
    loader = DataLoader(train, batch_size=6, num_workers=1, multiprocessing_context=context)
    x, _ = next(iter(loader))
    assert torch.equal(x, torch.stack([train[i][0] for i in range(6)]))


def test_a_link_is_refused_and_not_followed(tmp_path: Path) -> None:
    links = pa.array([{"bytes": None, "path": "https://example.com/0.png"}] * 20, STORED)
    pq.write_table(pa.table({"image": links}), tmp_path / "links.parquet")
    with pytest.raises(UserError, match=r"item 0 of .* refers to the file https.*not on this"):
        HuggingFace(tmp_path / "links.parquet").open()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": "img"}, "has no img, only image, label: set data.source.image"),
        ({"label": "kind", "labels": True}, "has no kind, only image, label"),
        ({"image": "label"}, r"item 0 of .* is a int64 of shape \(\)"),
        ({"split": "test"}, "has no test, only train: set data.source.split"),
        ({"held_out_split": "test"}, "has no test, only train: set data.source.held_out_split"),
        ({"held_out_split": "train"}, "held_out_split is train, which is trained on"),
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        HuggingFace(saved(tmp_path / "data"), **options).open()


def test_a_column_of_text_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": ["a"] * 20, "other": [1] * 20}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"holds Value.*neither images nor numbers.*image, other"):
        HuggingFace(tmp_path / "a.parquet").open()


@pytest.mark.parametrize("kind", [pa.binary(), STORED])
def test_encoded_images_need_no_features(tmp_path: Path, kind: Any) -> None:
    """Parquet that other tools wrote."""
    encoded = []
    for pixels in PIXELS:
        Image.fromarray(pixels).save(file := io.BytesIO(), "PNG")
        encoded.append(file.getvalue())
    values = encoded if kind == pa.binary() else [{"bytes": e, "path": None} for e in encoded]
    pq.write_table(pa.table({"image": pa.array(values, kind)}), tmp_path / "a.parquet")
    train, _ = HuggingFace(tmp_path / "a.parquet").open()
    assert np.array_equal(train[2][0].permute(1, 2, 0).numpy(), PIXELS[int(train.names[2])])


def test_what_is_no_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no data set: set data\.source\.root"):
        HuggingFace(tmp_path).open()
    for name in ("a.parquet", "b.arrow"):
        (tmp_path / name).write_bytes(b"not a table")
        with pytest.raises(UserError, match=rf"{name} cannot be read as a data set"):
            HuggingFace(tmp_path / name).open()
    with pytest.raises(UserError, match="mixes Arrow and Parquet"):
        HuggingFace(tmp_path).open()


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    images = [{"bytes": b"no image", "path": None}] * 20
    features = datasets.Features({"image": datasets.Image()})
    data = datasets.Dataset.from_dict({"image": images}, features=features)
    data.save_to_disk(str(tmp_path / "data"))
    with pytest.raises(UserError, match=r"item 0 of .* cannot be read \(not an image"):
        HuggingFace(tmp_path / "data").open()


def test_the_package_is_asked_for_by_the_name_of_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'energydiff\[datasets\]'"):
        HuggingFace(tmp_path).open()


def streamable(root: Path) -> Path:
    """Three files of unequal length, in small row groups."""
    root.mkdir()
    for k, rows in enumerate(np.split(np.arange(COUNT), [5, 17])):
        columns = {
            "image": [Image.fromarray(PIXELS[i]) for i in rows],
            "label": [KINDS[i] for i in rows],
        }
        part = datasets.Dataset.from_dict(columns, features=table().features)
        part.to_parquet(str(root / f"train-{k:05d}-of-00003.parquet"), batch_size=3)
    return root


@pytest.mark.parametrize("window", [1, 4, 100])
def test_a_stream_is_what_is_read_in_any_order(tmp_path: Path, window: int) -> None:
    """And nothing is converted."""
    root = streamable(tmp_path / "data")
    found = HuggingFace(root, labels=True, stream=window).open()
    for part in found:
        for order in (range(len(part)), reversed(range(len(part)))):
            for i in order:
                sample, label = part[i]
                number = int(part.names[i])
                assert np.array_equal(sample.permute(1, 2, 0).numpy(), PIXELS[number])
                assert part.classes[label] == KINDS[number]
    assert not (tmp_path / "cache").exists()
    expected = HuggingFace(root, labels=True).open()
    assert [part.names for part in found] == [part.names for part in expected]


def test_a_stream_holds_no_more_than_its_windows(tmp_path: Path) -> None:
    train, _ = HuggingFace(streamable(tmp_path / "data"), stream=2).open()
    rows: Any = train._items.values  # type: ignore[attr-defined]
    for i in range(len(train)):
        train[i]
        assert sum(len(cursor.rows) for cursor in rows._cursors.values()) <= 6 * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stream": 0}, r"data\.source\.stream is 0: at least 1"),
        ({"image": "img"}, "has no img, only image, label: set data.source.image"),
        ({"image": "label"}, r"is for encoded images, and the column label .* leave it out"),
        ({"label": "kind", "labels": True}, "has no kind, only image, label"),
    ],
)
def test_what_cannot_be_streamed_is_named(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        HuggingFace(streamable(tmp_path / "data"), **{"stream": 4} | options).open()
    with pytest.raises(UserError, match=r"stream is for Parquet files, and .* is Arrow"):
        HuggingFace(arrow(tmp_path / "arrow"), stream=4).open()


def test_a_damaged_file_of_a_stream_is_named(tmp_path: Path) -> None:
    root = streamable(tmp_path / "data")
    file = root / "train-00001-of-00003.parquet"
    content = bytearray(file.read_bytes())
    content[100:300] = b"\0" * 200
    file.write_bytes(content)
    train, _ = HuggingFace(root, stream=4).open()
    with pytest.raises(UserError, match=r"item \d+ of the train split of .* cannot be read"):
        [train[i] for i in range(len(train))]
    file.write_bytes(b"no table")
    with pytest.raises(UserError, match="cannot be read as a data set"):
        HuggingFace(root, stream=4).open()
