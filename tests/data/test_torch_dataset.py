"""Data sets of torch.utils.data: a foreign class, by object and by class path."""

import io
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from energydiff.data import DataSpec, Splits, TorchDataset
from energydiff.errors import UserError
from energydiff.registry import build_recorded

PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (40, 3, 6, 5), np.uint8))
KINDS = torch.arange(40) % 3


class Given(Dataset[Any]):
    """Any items."""

    def __init__(self, items: Any, **attributes: Any) -> None:
        self.items = items
        vars(self).update(attributes)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        return self.items[i]


class Ramps(Dataset[tuple[Tensor, int]]):
    """Images of one grey each, made from plain arguments."""

    def __init__(self, count: int, folder: Path = Path(), size: tuple[int, int] = (2, 2)) -> None:
        assert isinstance(folder, Path)
        assert isinstance(size, tuple)
        self.count, self.size = count, size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return torch.full(self.size, i, dtype=torch.uint8), i % 2


def samples(splits: Splits) -> Tensor:
    """All samples, in the order of the data set."""
    found = {name: part[i][0] for part in splits for i, name in enumerate(part.names)}
    return torch.stack([found[name] for name in sorted(found)])


def test_items_with_labels_become_samples_with_classes() -> None:
    spec = TorchDataset(TensorDataset(PIXELS, KINDS), labels=True)
    train, held_out = splits = spec.open()
    assert torch.equal(samples(splits), PIXELS)
    assert train.shape == (3, 6, 5)
    assert train.classes == held_out.classes == ("0", "1", "2")
    assert not set(train.names) & set(held_out.names)
    for part in splits:
        assert [label for _, label in part] == [int(KINDS[int(name)]) for name in part.names]


def test_without_labels_the_samples_alone_count() -> None:
    splits = TorchDataset(Given(list(PIXELS))).open()
    assert torch.equal(samples(splits), PIXELS)
    assert splits.train[0][1] == -1


@pytest.mark.parametrize("keys", [{}, {"image": "x", "label": "y"}])
def test_mappings_are_read_by_their_keys(keys: dict[str, str]) -> None:
    image, label = keys.get("image", "image"), keys.get("label", "label")
    items = [{image: p, label: f"kind {k}"} for p, k in zip(PIXELS, KINDS, strict=True)]
    splits = TorchDataset(Given(items), labels=True, **keys).open()
    assert torch.equal(samples(splits), PIXELS)
    assert splits.train.classes == ("kind 0", "kind 1", "kind 2")


@pytest.mark.parametrize(
    ("item", "shape"),
    [
        (np.zeros((6, 5), np.uint8), (1, 6, 5)),
        (np.zeros((6, 5, 3), np.uint8), (3, 6, 5)),
        (torch.zeros(3, 6, 5, dtype=torch.uint8), (3, 6, 5)),
        (torch.zeros(7, dtype=torch.uint8), (7,)),
        (Image.new("L", (5, 6)), (1, 6, 5)),
        (Image.new("RGB", (5, 6)), (3, 6, 5)),
        (Image.new("RGBA", (5, 6)), (3, 6, 5)),
    ],
)
def test_samples_of_every_kind(item: Any, shape: tuple[int, ...]) -> None:
    train, _ = TorchDataset(Given([(item, 0)] * 20)).open()
    assert train.shape == train[0][0].shape == shape
    assert train[0][0].dtype == torch.uint8


def test_pictures_are_resized_and_turned_to_channels() -> None:
    random = np.random.default_rng(0)
    pictures = [
        Image.fromarray(random.integers(0, 256, (6 + i % 3, 9, 3), np.uint8)) for i in range(20)
    ]
    train, _ = TorchDataset(Given(pictures), image_size=4, channels=1).open()
    assert train[0][0].shape == (1, 4, 4)


@pytest.mark.parametrize(("layout", "shape"), [("CHW", (6, 5, 4)), ("HWC", (4, 6, 5))])
def test_a_layout_is_for_arrays_that_can_be_read_in_two_ways(
    layout: Any, shape: tuple[int, ...]
) -> None:
    arrays = Given([np.full((6, 5, 4), i, np.uint8) for i in range(20)])
    assert TorchDataset(arrays, layout=layout).open().train.shape == shape


def test_numbers_other_than_bytes_need_their_range() -> None:
    points = TensorDataset(torch.linspace(0, 1, 60).view(20, 3))
    with pytest.raises(UserError, match=r"not bytes.*set data\.source\.value_range"):
        TorchDataset(points).open()
    train, _ = TorchDataset(points, value_range=(0, 1)).open()
    assert train.clean().min() >= -1
    assert train.clean().max() == pytest.approx(1)


def test_labels_of_the_whole_set_are_taken_without_reading_it() -> None:
    read = []

    class Counting(Given):
        def __getitem__(self, i: int) -> Any:
            read.append(i)
            return super().__getitem__(i)

    data = Counting(list(PIXELS), targets=KINDS.tolist(), classes=["a", "b", "c"])
    train, _ = TorchDataset(data, labels=True, check=False).open()
    assert read == [0]
    assert train.classes == ("a", "b", "c")
    assert train[3][1] == KINDS[int(train.names[3])]


def test_labels_that_are_changed_on_reading_are_read() -> None:
    """torchvision's ``target_transform`` leaves ``targets`` as they were."""
    items = [(p, int(k) + 1) for p, k in zip(PIXELS, KINDS, strict=True)]
    data = Given(items, targets=KINDS, target_transform=lambda k: k + 1)
    assert TorchDataset(data, labels=True).open().train.classes == ("1", "2", "3")


def test_another_data_set_is_held_out() -> None:
    both = TensorDataset(PIXELS, KINDS)
    spec = TorchDataset(Subset(both, range(30)), Subset(both, range(30, 40)), labels=True)
    train, held_out = spec.open()
    assert (len(train), len(held_out)) == (30, 10)
    assert torch.equal(held_out[2][0], PIXELS[32])
    assert [label for _, label in held_out] == KINDS[30:].tolist()
    assert not set(train.names) & set(held_out.names)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_of_a_loader_read_it(context: str) -> None:
    train, _ = TorchDataset(TensorDataset(PIXELS, KINDS), labels=True).open()
    loader = DataLoader(train, batch_size=6, num_workers=1, multiprocessing_context=context)
    x, labels = next(iter(loader))
    assert torch.equal(x, torch.stack([train[i][0] for i in range(6)]))
    assert labels.tolist() == [train[i][1] for i in range(6)]
    assert torch.equal(pickle.loads(pickle.dumps(train))[5][0], train[5][0])


class Endless(IterableDataset[Any]):
    """Has no length."""

    def __iter__(self) -> Any:
        return iter(())


ODD = [*PIXELS[:7], PIXELS[7, :, :4], *PIXELS[8:20]]
HOLE = [torch.tensor([0.0, 1.0])] * 11 + [torch.tensor([0.0, torch.nan])] * 9


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (Given(ODD), {}, r"item 7 of Given is uint8 \(3, 4, 5\), the first is uint8 \(3, 6, 5\)"),
        (Given([Image.new("L", (4, 4 + (i == 9))) for i in range(20)]), {}, r"item 9 .*image_size"),
        (Given(HOLE), {"value_range": (0, 1)}, "item 11 of Given holds a value that is not finite"),
        (Given([]), {}, "Given holds no items"),
        (Endless(), {}, "Endless has no length.*map-style"),
        (Given(["a"] * 20), {}, r"item 0 of Given is a str of shape \(\)"),
        (Given([Image.new("F", (4, 4))] * 20), {}, "item 0 of Given cannot be read.*floating"),
        (Given([{"picture": 1}] * 20), {}, r"item 0 of Given has no image, only picture: set data"),
        (Given(list(PIXELS)), {"image_size": 4}, r"image_size is for pictures.*leave it out"),
        (
            Given(list(PIXELS[:, :2])),
            {},
            r"item 0 of Given is an array of shape \(2, 6, 5\), whose",
        ),
        (Given(list(PIXELS[:, 0])), {"layout": "CHW"}, r"layout is for three axes: leave it out"),
        (
            Given([Image.new("L", (4, 4))] * 20),
            {"layout": "CHW"},
            "layout is for arrays, and item 0",
        ),
        (Given(list(PIXELS)), {"labels": True}, r"item 0 of Given has no label"),
        (Given(list(PIXELS), targets=[1, 2]), {"labels": True}, "has 2 labels for its 40 items"),
        (Given([(p, 0.5) for p in PIXELS]), {"labels": True}, "labels of Given are of type float"),
        (
            Given(list(PIXELS), targets=[7] * 40, classes=["a", "b"]),
            {"labels": True},
            "run from 7 to 7, but it names 2 classes",
        ),
        (Given(list(PIXELS)), {"held_out": 2.0}, r"data\.source\.held_out must lie between"),
    ],
)
def test_data_sets_that_are_refused(data: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TorchDataset(data, **options).open()


def test_an_unchecked_item_ends_the_run_that_meets_it() -> None:
    train, _ = TorchDataset(Given(ODD), check=False).open()
    with pytest.raises(UserError, match="item 7 of Given"):
        train.clean()


@pytest.mark.parametrize("encoded", [False, True])
def test_what_is_behind_transparency_can_be_chosen(encoded: bool) -> None:
    drawing = Image.new("RGBA", (4, 4), (0, 0, 255, 0))
    drawing.putpixel((0, 0), (9, 8, 7, 255))
    file = io.BytesIO()
    drawing.save(file, "PNG")
    items = Given([{"image": {"bytes": file.getvalue()}} if encoded else drawing] * 20)
    for options, behind in (({}, (255, 255, 255)), ({"background": "#102030"}, (16, 32, 48))):
        sample, _ = TorchDataset(items, **options).open().train[0]  # type: ignore[arg-type]
        assert sample[:, 0, 0].tolist() == [9, 8, 7]
        assert tuple(sample[:, 3, 3].tolist()) == behind
    with pytest.raises(UserError, match="background is 'purplish'"):
        TorchDataset(items, background="purplish").open()


class Lost(Given):
    """Items whose last file is lost."""

    def __getitem__(self, i: int) -> Any:
        if i == 39:
            raise FileNotFoundError(2, "No such file or directory", "39.bin")
        return self.items[i]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_item_whose_file_is_lost_is_named(workers: int) -> None:
    train, _ = TorchDataset(Lost(list(PIXELS)), check=False).open()
    with pytest.raises(UserError) as told:
        list(DataLoader(train, batch_size=8, num_workers=workers))
    lost = "item 39 of Lost cannot be read ([Errno 2] No such file or directory: '39.bin')"
    assert str(told.value) == f"{lost}: restore it."


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a command line records of a data set named by its class path."""
    monkeypatch.setitem(sys.modules, "ramps", sys.modules[__name__])
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--source", type=DataSpec)
    data = {"class_path": "ramps.Ramps", "init_args": {"count": 50, "folder": "x", "size": [3, 4]}}
    spec = {"class_path": "TorchDataset", "init_args": {"dataset": data, "labels": True}}
    parsed = parser.parse_object({"source": spec})
    assert parser.instantiate(parsed).source.open().train.shape == (1, 3, 4)
    return parsed.source.as_dict() | {"init_args": parsed.source.init_args.as_dict()}


def test_a_class_path_is_recorded_and_built_again(recorded: dict[str, Any]) -> None:
    spec = build_recorded(DataSpec, recorded, "the source")
    assert isinstance(spec, TorchDataset)
    assert spec.describe() == "data set Ramps"
    train, held_out = spec.open()
    assert train.shape == (1, 3, 4)
    assert len(train) + len(held_out) == 50
    assert train.classes == ("0", "1")


def test_a_module_that_was_not_imported_is_not_imported(
    recorded: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "ramps")
    recorded["init_args"]["dataset"]["class_path"] = "ramps.Ramps"
    with pytest.raises(UserError, match=r"dataset of the source is ramps\.Ramps.*--import ramps"):
        build_recorded(DataSpec, recorded, "the source")


def test_a_file_can_name_nothing_but_a_data_set(recorded: dict[str, Any]) -> None:
    """However long the class's module has been imported."""
    command = {"class_path": "subprocess.Popen", "init_args": {"args": ["false"]}}
    recorded["init_args"]["dataset"] = command
    with pytest.raises(UserError, match=r"is subprocess\.Popen, which is no Dataset"):
        build_recorded(DataSpec, recorded, "the source")
