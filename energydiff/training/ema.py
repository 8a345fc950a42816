"""Exponential moving average of the weights, by Lightning's callback, counted in images."""

from collections.abc import Iterator
from contextlib import contextmanager
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
from torch.optim.swa_utils import AveragedModel

from energydiff.errors import UserError
from energydiff.training.module import DiffusionModule
from energydiff.training.strategies import (
    Sharded,
    local,
    put_together,
    share_like,
    shared_out,
    whole,
)
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
        require_averageable(type(trainer.strategy), type(trainer.strategy).__name__)
        if stage == "fit":
            self._average_model = AveragedModel(pl_module, pl_module.device)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The average is cut as the weights are, where they are."""
        assert self._average_model is not None
        share_like(self._average_model.module, pl_module)

    def averaged(self, module: DiffusionModule) -> DiffusionModule:
        """The module with averaged weights; the given one outside ``fit``."""
        if self._average_model is None:
            return module
        averaged = self._average_model.module
        assert isinstance(averaged, DiffusionModule)
        return averaged

    @staticmethod
    @contextmanager
    def of(trainer: pl.Trainer, module: DiffusionModule) -> Iterator[DiffusionModule]:
        """The module with averaged weights, whole inside, or the given one where nothing is
        averaged; to be entered on all ranks."""
        ema = next((c for c in trainer.callbacks if isinstance(c, EMA)), None)  # type: ignore[attr-defined]
        averaged = ema.averaged(module) if ema else module
        with put_together(averaged):
            yield averaged

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
        mine, theirs = local(averaged.parameters()), local(pl_module.parameters())
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

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        checkpoint["state_dict"] = whole(checkpoint["state_dict"])

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._average_model is not None:
            for weights in {"state_dict", "current_model_state"} & checkpoint.keys():
                checkpoint[weights] = shared_out(checkpoint[weights], pl_module)
        super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Not yet: a checkpoint saved when training ends must still hold the weights themselves."""

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After ``fit`` the module holds the averaged weights."""
        super().on_train_end(trainer, pl_module)


def require_averageable(strategy: type[Strategy], name: str) -> None:
    """``UserError`` for a strategy whose weights cannot be averaged where they lie."""
    known = issubclass(strategy, SingleDeviceStrategy | DDPStrategy | Sharded)
    if not known or issubclass(strategy, DeepSpeedStrategy | XLAStrategy):
        raise UserError(
            f"trainer.strategy {name} is not supported: the average of weights would be wrong; use"
            " auto or ddp, or fsdp2 where a model is too large for one device."
        )
