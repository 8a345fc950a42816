"""Callbacks for a training process one of whose ranks is to meet a fault."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


class PoisonRank(Callback):
    """Makes one pixel of the second rank's first image NaN."""

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: dict[str, Tensor], *_: Any
    ) -> None:
        if trainer.global_rank == 1:
            batch["raw"] = batch["raw"].float()
            batch["raw"][0, 0, 0, 0] = torch.nan


class ForgetOnRank(Callback):
    """Loses what came back to the second rank's first parameter."""

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_rank == 1:
            next(pl_module.parameters()).grad = None
