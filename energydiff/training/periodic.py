"""Callbacks that look at the averaged model every n images, on all ranks."""

from abc import ABC, abstractmethod
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from energydiff.errors import UserError
from energydiff.training.ema import EMA
from energydiff.training.module import DiffusionModule


class PeriodicCallback(Callback, ABC):
    """Calls ``observe`` every so many images with the module that has averaged weights.

    Args:
        every_images: how often; rounded to whole optimizer steps; 0: never.
    """

    def __init__(self, every_images: int) -> None:
        if every_images < 0:
            raise UserError(f"every_images is {every_images}; it must be at least 0 (never).")
        self.every_images = every_images
        self._last_step = -1

    @abstractmethod
    def observe(self, trainer: pl.Trainer, module: DiffusionModule) -> dict[str, float]:
        """Look and log, on every rank; returns what was logged."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        assert isinstance(pl_module, DiffusionModule)
        if not self.every_images:
            return
        every_steps = max(1, self.every_images // pl_module.batch_size)
        step = trainer.global_step
        if step == 0 or step % every_steps or step == self._last_step:
            return
        self._last_step = step
        averaged = pl_module
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EMA):
                averaged = callback.averaged(pl_module)
        self.observe(trainer, averaged)


def gathered(mine: Tensor, count: int, trainer: pl.Trainer) -> Tensor:
    """All ranks' rows, (count, …), where each rank has every ``world_size``-th of them."""
    if trainer.world_size == 1:
        return mine
    parts: list[Tensor] = [mine] * trainer.world_size
    torch.distributed.all_gather_object(parts, mine)
    everything = mine.new_empty(count, *mine.shape[1:])
    for rank, part in enumerate(parts):
        everything[rank :: trainer.world_size] = part
    return everything
