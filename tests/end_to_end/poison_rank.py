"""A callback for a training process one of whose ranks is to see a broken image."""

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
