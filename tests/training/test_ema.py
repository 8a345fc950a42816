"""The average of the weights, computed once more by hand."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
    Strategy,
)
from lightning.pytorch.strategies.xla import XLAStrategy
from torch import Tensor
from torch.testing import assert_close

from energydiff.errors import UserError
from energydiff.training import EMA, DiffusionData, DiffusionModule
from energydiff.training.strategies import Sharded

BATCH, STEPS = 8, 6


class Weights(pl.Callback):
    """Notes one weight matrix and its average after every step."""

    def __init__(self, ema: EMA) -> None:
        self.ema = ema
        self.current: list[Tensor] = []
        self.averaged: list[Tensor] = []

    def on_train_batch_end(self, trainer: pl.Trainer, module: DiffusionModule, *_: Any) -> None:
        for found, notes in ((module, self.current), (self.ema.averaged(module), self.averaged)):
            notes.append(found.denoiser.potential.backbone.output.weight.detach().clone())


Fit = Callable[[EMA], Weights]


@pytest.fixture
def fit(make_trainer, module: DiffusionModule, data: DiffusionData) -> Fit:
    def run(ema: EMA) -> Weights:
        weights = Weights(ema)
        make_trainer(max_steps=STEPS, callbacks=[ema, weights]).fit(module, data)
        return weights

    return run


@pytest.mark.parametrize(
    ("halflife", "ratio", "halflives"),
    [
        # Images seen after a step: 8, 16, …; the half-life is at most ratio times that.
        (20, 1.0, [8, 16, 20, 20, 20, 20]),
        (1_000, 0.5, [4, 8, 12, 16, 20, 24]),
        (10, 1e9, [10] * 6),
    ],
)
def test_the_average_is_the_one_computed_by_hand(halflife, ratio, halflives, fit: Fit) -> None:
    """w̄ ← β w̄ + (1 − β) w with β = ½^(batch / half-life), from the weights of the first step."""
    weights = fit(EMA(halflife, ratio))
    average = weights.current[0]
    for step in range(1, STEPS):
        keep = 0.5 ** (BATCH / halflives[step])
        average = keep * average + (1 - keep) * weights.current[step]
        assert_close(weights.averaged[step], average, rtol=1e-5, atol=1e-8)
    assert not torch.equal(weights.averaged[-1], weights.current[-1])


def test_without_a_warm_up_ratio_the_average_is_the_weights(fit: Fit) -> None:
    weights = fit(EMA(1_000, 0.0))
    assert torch.equal(weights.averaged[-1], weights.current[-1])


def test_held_out_losses_are_of_the_average(
    make_trainer, module: DiffusionModule, data: DiffusionData
) -> None:
    """Validation inside fit swaps the averaged weights in, and training goes on with its own."""
    ema = EMA(20, 1.0)
    weights = Weights(ema)
    seen: list[Tensor] = []

    class Look(pl.Callback):
        def on_validation_batch_start(self, trainer, module, *_: Any) -> None:
            seen.append(module.denoiser.potential.backbone.output.weight.detach().clone())

    options = {"max_steps": STEPS, "val_check_interval": 4, "limit_val_batches": 1}
    make_trainer(callbacks=[ema, weights, Look()], **options).fit(module, data)
    assert torch.equal(seen[0], weights.averaged[3])
    average = weights.current[0]
    for step in range(1, STEPS):
        keep = 0.5 ** (BATCH / min(20, 8 * (step + 1)))
        average = keep * average + (1 - keep) * weights.current[step]
    assert_close(weights.averaged[-1], average, rtol=1e-5, atol=1e-8)


def test_after_fit_the_module_holds_the_average(
    make_trainer, module: DiffusionModule, data: DiffusionData, tmp_path: Path
) -> None:
    """But a checkpoint written when training ends holds the weights too, to train on from."""
    ema = EMA(20, 1.0)
    weights = Weights(ema)
    name = "denoiser.potential.backbone.output.weight"

    class Save(pl.Callback):
        def on_train_end(self, trainer, module) -> None:
            trainer.save_checkpoint(tmp_path / "last.ckpt")

    make_trainer(max_steps=STEPS, callbacks=[ema, weights, Save()]).fit(module, data)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert torch.equal(saved["current_model_state"][name], weights.current[-1])
    assert torch.equal(saved["state_dict"][name], weights.averaged[-1])
    assert torch.equal(module.state_dict()[name], weights.averaged[-1])


@pytest.mark.parametrize(
    ("strategy", "whole"),
    [
        (SingleDeviceStrategy, True),
        (DDPStrategy, True),
        (Sharded, True),
        (FSDPStrategy, False),
        (ModelParallelStrategy, False),
        (DeepSpeedStrategy, False),
        (XLAStrategy, False),
    ],
)
def test_weights_that_cannot_be_averaged_where_they_lie_are_refused(
    strategy: type[Strategy], whole: bool, module: DiffusionModule, data: DiffusionData
) -> None:
    """It would be an average of shards against whole weights."""
    trainer: Any = SimpleNamespace(strategy=object.__new__(strategy))
    ema = EMA()
    if whole:
        ema.setup(trainer, module, "fit")
        assert ema.averaged(module) is not module
        return
    with pytest.raises(UserError, match=f"trainer.strategy {strategy.__name__} is not supported"):
        ema.setup(trainer, module, "fit")
