"""Callbacks that look at the averaged model now and then, on all ranks."""

from abc import ABC, abstractmethod
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from energydiff.errors import UserError
from energydiff.training.ema import EMA
from energydiff.training.module import DiffusionModule


class Watcher(Callback, ABC):
    """Calls ``observe`` after the steps that are ``due`` with the module that has averaged
    weights."""

    _last_step = -1

    @abstractmethod
    def due(self, step: int, batch_size: int) -> bool:
        """Whether to look after this many steps."""

    @abstractmethod
    def observe(self, trainer: pl.Trainer, module: DiffusionModule) -> dict[str, float]:
        """Look and log, on every rank; returns what was logged."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        assert isinstance(pl_module, DiffusionModule)
        step = trainer.global_step
        if step == self._last_step or step == 0 or not self.due(step, pl_module.batch_size):
            return
        self._last_step = step
        with EMA.of(trainer, pl_module) as averaged:
            self.observe(trainer, averaged)


class PeriodicCallback(Watcher):
    """Looks every so many images.

    Args:
        every_images: how often; rounded to whole optimizer steps; 0: never.
    """

    def __init__(self, every_images: int) -> None:
        if every_images < 0:
            raise UserError(f"every_images is {every_images}; it must be at least 0 (never).")
        self.every_images = every_images

    def due(self, step: int, batch_size: int) -> bool:
        return bool(self.every_images) and not step % max(1, self.every_images // batch_size)


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
