"""Exponential moving average of the weights, by Lightning's callback, counted in images."""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    SingleDeviceStrategy,
    Strategy,
)
from lightning.pytorch.strategies.xla import XLAStrategy
from torch import Tensor

from energydiff.errors import UserError
from energydiff.training.module import DiffusionModule
from energydiff.training.stream_module import StreamModule


class EMA(WeightAveraging):
    """Averages the weights with a half-life that grows during a warm-up (EDM, appendix F.3).

    Args:
        halflife_images: images after which a weight's past counts half.
        warmup_ratio: the half-life never exceeds this share of the images seen so far.
    """

    def __init__(self, halflife_images: int = 500_000, warmup_ratio: float = 0.05) -> None:
        super().__init__(use_buffers=False)
        self.halflife_images, self.warmup_ratio = halflife_images, warmup_ratio

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        require_whole_weights(type(trainer.strategy), type(trainer.strategy).__name__)
        super().setup(trainer, pl_module, stage)

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
        """One ``lerp`` of all weights, without asking the device how many averages there were."""
        assert isinstance(pl_module, StreamModule) and self._average_model is not None
        step = trainer.global_step
        if step <= self._latest_update_step:
            return
        self._latest_update_step = step
        averaged = self._average_model.module
        mine: list[Tensor] = [*averaged.parameters()]
        theirs: list[Tensor] = [*pl_module.parameters()]
        with torch.no_grad():
            if step == 1:
                torch._foreach_copy_(mine, theirs)
            else:
                images = pl_module.batch_size * step
                halflife = min(self.halflife_images, self.warmup_ratio * images)
                keep = 0.5 ** (pl_module.batch_size / max(halflife, 1e-8))
                torch._foreach_lerp_(mine, theirs, 1 - keep)
            for buffer, current in zip(averaged.buffers(), pl_module.buffers(), strict=True):
                buffer.copy_(current)
            self._average_model.n_averaged += 1

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Not yet: a checkpoint saved when training ends must still hold the weights themselves."""

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After ``fit`` the module holds the averaged weights."""
        super().on_train_end(trainer, pl_module)


def require_whole_weights(strategy: type[Strategy], name: str) -> None:
    """``UserError`` for a strategy under which a device may hold but a part of the weights."""
    whole = issubclass(strategy, SingleDeviceStrategy | DDPStrategy)
    if not whole or issubclass(strategy, DeepSpeedStrategy | XLAStrategy):
        raise UserError(
            f"trainer.strategy {name} is not supported: every device must hold all weights for"
            " their average to be right; use auto or ddp."
        )
