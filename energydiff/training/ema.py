"""Exponential moving average of the weights, by Lightning's callback, counted in images."""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from energydiff.training.module import DiffusionModule
from energydiff.training.stream_module import StreamModule


class EMA(WeightAveraging):
    """Averages the weights with a half-life that grows during a warm-up (EDM, appendix F.3).

    Args:
        halflife_images: images after which a weight's past counts half.
        warmup_ratio: the half-life never exceeds this share of the images seen so far.
    """

    def __init__(self, halflife_images: int = 500_000, warmup_ratio: float = 0.05) -> None:
        super().__init__(use_buffers=False, multi_avg_fn=self._average)
        self.halflife_images, self.warmup_ratio = halflife_images, warmup_ratio
        self._images = 0
        self._images_per_step = 0

    def averaged(self, module: DiffusionModule) -> DiffusionModule:
        """The module with averaged weights; the given one outside ``fit``."""
        if self._average_model is None:
            return module
        averaged = self._average_model.module
        assert isinstance(averaged, DiffusionModule)
        return averaged

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        assert isinstance(pl_module, StreamModule)
        self._images_per_step = pl_module.batch_size
        self._images = trainer.global_step * pl_module.batch_size
        super().on_train_batch_end(trainer, pl_module, *args, **kwargs)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Not yet: a checkpoint saved when training ends must still hold the weights themselves."""

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After ``fit`` the module holds the averaged weights."""
        super().on_train_end(trainer, pl_module)

    @torch.no_grad()
    def _average(self, averaged: list[Tensor], current: list[Tensor], _: Any) -> None:
        halflife = min(self.halflife_images, self.warmup_ratio * self._images)
        keep = 0.5 ** (self._images_per_step / max(halflife, 1e-8))
        torch._foreach_lerp_(averaged, current, 1 - keep)
