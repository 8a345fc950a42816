"""A data set from outside the package, opened again by what a run recorded."""

import sys
from pathlib import Path

import pytest

import energydiff
from energydiff.errors import UserError
from energydiff.training.finish import calibrate

MODULE = """
import torch
from torch.utils.data import Dataset


class Bars(Dataset):
    classes = ["thin", "thick"]

    def __init__(self, count: int, size: int = 8) -> None:
        self.count, self.size = count, size
        self.targets = [i % 2 for i in range(count)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int):
        image = torch.zeros(self.size, self.size, dtype=torch.uint8)
        start = i // 2 % (self.size - 2)
        image[start : start + 1 + i % 2] = 200 + i % 7
        return {"image": image, "label": i % 2}
"""


def test_data_whose_module_is_not_imported_say_what_to_add(
    tiny_mlp: Path, tmp_path: Path, door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run's gauge and its evaluation open its data again; that runs no code on its own."""
    (tmp_path / "bars_of_mine.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    run = tmp_path / "run"
    fit = ["fit", "--config", tiny_mlp, "--trainer.default_root_dir", run]
    fit += ["--data.source=TorchDataset", "--data.source.dataset=bars_of_mine.Bars"]
    fit += ["--data.source.dataset.count=300", "--data.source.labels=true"]
    done = door(*fit, "--model.total_images=64")
    assert done.code == 0, done.err
    assert energydiff.open_model(run / "export").classes == ("thin", "thick")
    calibrate(energydiff.open_model(run), evaluations=64, images=64)
    monkeypatch.delitem(sys.modules, "bars_of_mine")
    with pytest.raises(UserError, match=r"dataset of .*add --import bars_of_mine"):
        calibrate(energydiff.open_model(run), evaluations=64)
    measured = door("evaluate", "fid", run, "-n", 40)
    assert "add --import bars_of_mine" in measured.sentence, measured.err
