"""What a run that goes on keeps of its data."""

from pathlib import Path
from typing import Any

import pytest
import torch

from energydiff.saving import CHECKPOINT_KEY
from energydiff.training.data import kept_sigma_data

SOURCE = {"class_path": "energydiff.data.Folder", "init_args": {"root": "a"}}
CONFIG = {"data": {"source": SOURCE}}


@pytest.mark.parametrize(
    ("saved", "kept"),
    [
        ({"model": {"sigma_data": 0.5}, "config": CONFIG}, 0.5),
        ({"model": {"sigma_data": 0.5}, "config": {"data": {"source": {**SOURCE, "a": 1}}}}, None),
        ({"model": {}, "config": CONFIG}, None),  # a completion
        ({"model": {"sigma_data": 0.5}, "config": {}}, None),  # trained in Python
    ],
)
def test_sigma_data_is_kept_where_the_source_is_the_same(
    saved: dict[str, Any], kept: float | None, tmp_path: Path
) -> None:
    torch.save({CHECKPOINT_KEY: saved, "state_dict": {}}, tmp_path / "last.ckpt")
    assert kept_sigma_data(tmp_path / "last.ckpt", SOURCE) == kept
