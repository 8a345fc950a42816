"""Sources whose samples lie in shards: a pass has every sample once, whoever reads, and goes on."""

from collections import Counter
from collections.abc import Callable
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from energydiff.data import (
    Digits,
    Folder,
    HuggingFace,
    LitData,
    Normalization,
    Source,
    Splits,
    WebDataset,
)
from energydiff.data.converting import convert
from energydiff.data.source import ArraySource, Locality, index_names
from energydiff.potentials import MLP
from energydiff.random import ORDER, keyed_order
from energydiff.training import DiffusionData, DiffusionModule
from energydiff.training.stream import CountedBatches, TrainingStream, pass_order

COUNT, BATCH, WINDOW = 97, 12, 16


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENERGYDIFF_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Image i has its number in its pixels; two classes."""
    for i in range(COUNT):
        file = tmp_path / "images" / "ab"[i % 2] / f"{i:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((6, 5, 3), i, np.uint8)
        pixels[0, 0] = 0, 128, 255
        Image.fromarray(pixels).save(file)
    return tmp_path / "images"


def web_dataset(folder: Path, out: Path) -> Splits:
    convert(Folder(folder, labels=True), out, per_shard=20)
    return WebDataset(out, labels=True).open()


def lit_data(folder: Path, out: Path) -> Splits:
    pytest.importorskip("litdata")
    from litdata.streaming.writer import BinaryWriter

    out.mkdir()
    writer = BinaryWriter(str(out), chunk_size=20)
    for i, file in enumerate(sorted(folder.rglob("*.png"))):
        writer[i] = {"image": file.read_bytes(), "label": i % 2}
    writer.done()
    writer.merge()
    return LitData(out, labels=True).open()


def parquet(folder: Path, out: Path) -> Splits:
    datasets = pytest.importorskip("datasets")
    out.mkdir()
    files = sorted(folder.rglob("*.png"))
    for k in range(4):
        images = [{"bytes": file.read_bytes(), "path": None} for file in files[k::4]]
        columns = {"image": images, "label": [k % 2] * len(images)}
        features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
        table = datasets.Dataset.from_dict(columns, features=features)
        table.to_parquet(str(out / f"train-{k:05d}-of-00004.parquet"), batch_size=5)
    return HuggingFace(out, labels=True, stream=WINDOW).open()


KINDS = [web_dataset, lit_data, parquet]
Make = Callable[[Path, Path], Splits]


def number(raw: Tensor) -> list[int]:
    return raw[:, 0, 1, 1].tolist()


def read(source: Source, batches: int, start: int, ranks: int, workers: int) -> list[list[int]]:
    """The numbers of the images of each batch, over all ranks."""
    parts = []
    for rank in range(ranks):
        groups = [*islice(CountedBatches(BATCH, start, rank, ranks), batches)]
        loader = DataLoader(TrainingStream(source, 3), batch_sampler=groups, num_workers=workers)
        parts.append([number(batch["raw"]) for batch in loader])
    return [[*chain(*shares)] for shares in zip(*parts, strict=True)]


@pytest.mark.parametrize("make", KINDS)
def test_every_sample_is_seen_once_a_pass_over_ranks_and_workers(
    make: Make, folder: Path, tmp_path: Path
) -> None:
    """And in the same batches; what starts late goes on as what did not stop."""
    train, held_out = make(folder, tmp_path / "shards")
    seen = number(torch.stack([raw for raw, _ in held_out]))
    mine = sorted(set(range(COUNT)) - set(seen))
    assert len(mine) == len(train) and len(seen) == len(set(seen)) == len(held_out) > 5
    batches = 3 * len(mine) // BATCH + 1
    one = read(train, batches, 0, 1, 0)
    flat = [*chain(*one)]
    passes = [flat[i : i + len(mine)] for i in range(0, 3 * len(mine), len(mine))]
    assert all(sorted(each) == mine for each in passes) and passes[0] != passes[1] != passes[2]
    for ranks, workers in ((1, 2), (2, 0), (2, 2)):
        assert read(train, batches, 0, ranks, workers) == one
    for done, ranks, workers in ((5, 2, 2), (11, 1, 0)):
        assert read(train, batches - done, done * BATCH, ranks, workers) == one[done:]


@pytest.mark.parametrize("make", KINDS)
def test_samples_can_be_asked_for_in_any_order(make: Make, folder: Path, tmp_path: Path) -> None:
    """As a subset, a measurement or held-out loss does."""
    train, _ = make(folder, tmp_path / "shards")
    order = np.random.default_rng(0).permutation(len(train))
    expected = torch.stack([raw for raw, _ in train])
    assert torch.equal(torch.stack([train[int(i)][0] for i in order]), expected[order])
    assert torch.equal(torch.stack([raw for raw, _ in train.select(order)]), expected[order])


def test_a_run_on_shards_is_a_run_on_the_folder(folder: Path, tmp_path: Path, make_trainer) -> None:
    """Bit for bit: losses, held-out loss and weights."""

    def trained(source: Folder | WebDataset) -> tuple[Tensor, list[Tensor]]:
        torch.manual_seed(0)
        data = DiffusionData(source, batch_size=BATCH, flip=True, num_workers=0)
        network = MLP(data.shape, width=8, depth=1, num_classes=2)
        module = DiffusionModule(network, data.sigma_data, data.normalization, batch_size=BATCH)
        trainer = make_trainer(max_steps=10)
        trainer.fit(module, data)
        trainer.limit_val_batches = 1.0
        (metrics,) = trainer.validate(module, data, verbose=False)
        return torch.tensor([*metrics.values()]), [p.detach() for p in module.parameters()]

    convert(Folder(folder, labels=True), tmp_path / "shards", per_shard=20)
    expected, weights = trained(Folder(folder, labels=True))
    found, same = trained(WebDataset(tmp_path / "shards", labels=True))
    assert len(expected) and torch.equal(found, expected)
    assert all(torch.equal(a, b) for a, b in zip(weights, same, strict=True))


def local(count: int, shards: int, window: int) -> Source:
    """Samples that lie in their shards in any order."""
    values = np.zeros((count, 1), np.float32)
    source = ArraySource(values, Normalization(-1, 1), index_names(count))
    where = np.random.default_rng(0).integers(0, shards, count)
    source.locality = Locality(where, window)
    return source


def ordered(source: Source, seed: int, number: int) -> NDArray[np.int64]:
    return pass_order(source.places, source.locality, seed, number)


def test_a_pass_goes_from_shard_to_shard() -> None:
    source = local(1000, 20, 100)
    assert source.locality is not None
    orders = [ordered(source, 5, number) for number in range(3)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(1000))
        met = [set(source.locality.shards[order[i : i + 100]]) for i in range(0, 1000, 100)]
        assert max(map(len, met)) <= 4  # of 50 samples each, where any order has all 20
        assert max(Counter(shard for each in met for shard in each).values()) <= 3
    first = [source.locality.shards[order[0]] for order in orders]
    assert len({tuple(order) for order in orders}) == 3 and len(set(first)) > 1
    assert np.array_equal(ordered(source, 5, 1), orders[1])
    part = source.select(np.arange(0, 1000, 7))
    assert sorted(ordered(part, 5, 0).tolist()) == list(range(143))


def test_shards_beside_those_of_a_pass_do_not_change_its_order() -> None:
    """As when data grow under a run, which finishes the pass that was begun with its samples."""
    source = local(200, 10, 20)
    few = np.flatnonzero(source.locality.shards % 3 == 1)
    expected = few[ordered(source.select(few), 5, 2)]
    assert np.array_equal(pass_order(few, source.locality, 5, 2), expected)


@pytest.mark.parametrize("window", [60, 61, 1000])
def test_a_window_for_everything_is_any_order(window: int) -> None:
    expected = keyed_order(7, [4], 60, ORDER)[0].numpy()
    assert np.array_equal(ordered(local(60, 5, window), 7, 4), expected)


def test_sources_without_shards_keep_their_order() -> None:
    source = Digits().open().train
    expected = keyed_order(0, [2], len(source), ORDER)[0].numpy()
    assert np.array_equal(ordered(source, 0, 2), expected)
