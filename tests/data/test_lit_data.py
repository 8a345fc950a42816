"""litdata's chunks: kinds of fields, and what a stranger's index may not ask for."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from energydiff.data import LitData
from energydiff.errors import UserError

pytest.importorskip("litdata")
from litdata.streaming.writer import BinaryWriter

COUNT = 24
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 6, 5, 3), np.uint8)


def encoded(pixels: Any, kind: str = "PNG") -> bytes:
    Image.fromarray(pixels).save(file := io.BytesIO(), kind)
    return file.getvalue()


def written(root: Path, item: Callable[[int], Any] = lambda i: encoded(PIXELS[i])) -> Path:
    root.mkdir()
    writer = BinaryWriter(str(root), chunk_size=10)
    for i in range(COUNT):
        writer[i] = item(i)
    writer.done()
    writer.merge()
    return root


def jpeg(pixels: Any) -> Image.Image:
    return Image.open(io.BytesIO(encoded(pixels, "JPEG")))


@pytest.mark.parametrize(
    "item",
    [
        lambda i: {"image": encoded(PIXELS[i]), "label": i % 3},
        lambda i: (Image.fromarray(PIXELS[i]), f"{i % 3}"),
        lambda i: {"image": torch.from_numpy(PIXELS[i]).movedim(2, 0), "label": i % 3},
        lambda i: [PIXELS[i], i % 3],
    ],
)
def test_images_and_labels_are_read(tmp_path: Path, item: Callable[[int], Any]) -> None:
    splits = LitData(written(tmp_path / "data", item), labels=True).open()
    assert sum(map(len, splits)) == COUNT
    for part in splits:
        assert part.classes == ("0", "1", "2") and part.locality is not None
        for name, (sample, label) in zip(part.names, part, strict=True):
            assert np.array_equal(sample.permute(1, 2, 0).numpy(), PIXELS[int(name)])
            assert label == int(name) % 3
    assert splits.train.locality and set(splits.train.locality.shards.tolist()) == {0, 1, 2}


def test_jpegs_are_decoded_by_our_rules(tmp_path: Path) -> None:
    root = written(tmp_path / "data", lambda i: {"image": jpeg(PIXELS[i])})
    assert json.loads((root / "index.json").read_text())["config"]["data_format"] == ["jpeg"]
    train, _ = LitData(root, image_size=4).open()
    assert train.shape == (3, 4, 4) and train.decoded


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_of_a_loader_read_it(tmp_path: Path, context: str) -> None:
    train, _ = LitData(written(tmp_path / "data")).open()
    expected = torch.stack([train[i][0] for i in range(6)])
    loader = DataLoader(train, batch_size=6, num_workers=1, multiprocessing_context=context)
    x, _ = next(iter(loader))
    assert torch.equal(x, expected)


class Marks:
    """Whoever unpickles it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_a_pickle_is_refused_and_not_read(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    root = written(tmp_path / "data", lambda i: {"image": PIXELS[i], "label": Marks(mark)})
    with pytest.raises(UserError, match="fields of the kind pickle, which may run code"):
        LitData(root).open()
    with pytest.raises(UserError, match="fields of the kind pickle, which may run code"):
        LitData(root, labels=True).open()
    assert not mark.exists()


IMPORTS = '[1, {"type": "collections.defaultdict", "context": "{}", "children_spec": []}]'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["config"].update(data_format=["graph:pickle"]), "of the kind graph"),
        (lambda c: c["config"].update(data_spec=IMPORTS), "optimised with collections.defaultdict"),
        (lambda c: c["config"].update(data_spec="{"), r"index\.json is no index of litdata"),
        (lambda c: c["config"].update(compression="zstd"), "optimised with compression"),
        (lambda c: c["config"].update(item_loader="TokensLoader"), "optimised with TokensLoader"),
        (
            lambda c: c["chunks"][1].update(filename="../x.bin"),
            r"'\.\./x\.bin', outside its folder",
        ),
        (lambda c: c["chunks"][1].update(filename="x.bin"), r"x\.bin is missing"),
        (lambda c: c["chunks"][1].update(chunk_bytes=3), r"chunk-0-1\.bin has not the 3 bytes"),
        (lambda c: c.pop("chunks"), r"index\.json is no index of litdata"),
        (lambda c: c["chunks"].clear(), "holds no items"),
    ],
)
def test_an_index_that_is_wrong_or_asks_for_more_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    root = written(tmp_path / "data")
    content = json.loads((root / "index.json").read_text())
    change(content)
    (root / "index.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        LitData(root).open()


def test_a_raw_image_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    root = written(tmp_path / "data", lambda i: Image.fromarray(PIXELS[i]))
    file = root / "chunk-0-1.bin"
    size = np.array([5, 6], np.uint32).tobytes()
    huge = np.array([100_000, 100_000], np.uint32).tobytes()
    file.write_bytes(file.read_bytes().replace(size, huge))
    with pytest.raises(UserError, match=r"item 10 of .* cannot be read \(100000x100000 pixels"):
        LitData(root).open()


def test_a_damaged_chunk_is_a_sentence(tmp_path: Path) -> None:
    root = written(tmp_path / "data")
    content = bytearray((root / "chunk-0-2.bin").read_bytes())
    content[5:45] = b"\xff" * 40
    (root / "chunk-0-2.bin").write_bytes(content)
    with pytest.raises(UserError, match=r"item 2\d of .*data cannot be read"):
        LitData(root).open()


def test_a_folder_without_an_index_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no index\.json: set data\.source\.root"):
        LitData(tmp_path).open()
