"""How samples reach training: by whom they are read, and where their batches lie."""

from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from energydiff.data import Arrays, DataSpec, Digits, Folder, TorchDataset
from energydiff.training import DiffusionData
from energydiff.training import data as module

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 4, 4), np.uint8)


class Pictures(torch.utils.data.Dataset):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return len(PIXELS)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        return Image.fromarray(PIXELS[i]), 0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.setenv("ENERGYDIFF_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "images"
    root.mkdir()
    for i, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(root / f"{i}.png")
    return Folder(root)


@pytest.fixture
def mapped(tmp_path: Path) -> Arrays:
    np.save(tmp_path / "x.npy", PIXELS)
    return Arrays(tmp_path / "x.npy")


def loader(
    source: DataSpec, trainer: pl.Trainer, num_workers: int | None = None
) -> torch.utils.data.DataLoader[module.Item]:
    data = DiffusionData(source, batch_size=8, num_workers=num_workers)
    data.trainer = trainer
    return data.train_dataloader()


def test_pictures_are_decoded_by_workers_and_arrays_are_not(
    folder: Folder,
    mapped: Arrays,
    make_trainer: Callable[..., pl.Trainer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processors = {1: 7, 4: 1}  # by the devices that share them, without their own processes
    monkeypatch.setattr(module, "suggested_max_num_workers", processors.__getitem__)
    trainer = make_trainer()
    rows = TorchDataset(TensorDataset(torch.from_numpy(PIXELS)))
    for array in (Digits(), mapped, rows):
        assert loader(array, trainer).num_workers == 0
    for pictures in (folder, TorchDataset(Pictures())):
        assert loader(pictures, trainer).num_workers == 4
        assert loader(pictures, make_trainer(devices=4, strategy="ddp")).num_workers == 1
        assert loader(pictures, trainer, num_workers=0).num_workers == 0


def test_batches_are_the_same_whoever_reads_them(
    folder: Folder, make_trainer: Callable[..., pl.Trainer]
) -> None:
    one, other = (
        list(zip(range(4), loader(folder, make_trainer(), workers), strict=False))
        for workers in (0, 3)
    )
    for (_, expected), (_, found) in zip(one, other, strict=True):
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_nothing_is_pinned_for_a_run_on_the_cpu(
    make_trainer: Callable[..., pl.Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is a GPU that it does not use."""
    trainer = make_trainer()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not loader(Digits(), trainer).pin_memory
    monkeypatch.setattr(type(trainer.strategy), "root_device", torch.device("cuda"))
    assert loader(Digits(), trainer).pin_memory
