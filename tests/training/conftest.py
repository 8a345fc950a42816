"""A tiny model on the embedded digits, and a trainer that leaves nothing behind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest

from energydiff.potentials import MLP
from energydiff.training import TRAINER, DiffusionData, DiffusionModule


@pytest.fixture
def data() -> DiffusionData:
    return DiffusionData(batch_size=8)


@pytest.fixture
def module(data: DiffusionData) -> DiffusionModule:
    return DiffusionModule(
        MLP(data.shape, width=8, depth=1),
        data.sigma_data,
        data.normalization,
        batch_size=data.batch_size,
        warmup_images=0,
        schedule="constant",
    )


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., pl.Trainer]:
    """A trainer on the CPU; options override the defaults of the command line."""

    def make(**options: Any) -> pl.Trainer:
        defaults: dict[str, Any] = TRAINER | {
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "limit_val_batches": 0,
            "default_root_dir": tmp_path,
        }
        return pl.Trainer(**(defaults | options))

    return make
