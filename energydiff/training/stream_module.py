"""What every module that learns from the counted stream shares: its steps and its optimizer."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torchmetrics import MeanMetric

from energydiff.errors import UserError
from energydiff.random import RULE
from energydiff.saving import CHECKPOINT_KEY
from energydiff.training.strategies import share_weights


class StreamModule(pl.LightningModule, ABC):
    """AdamW on a loss per image of the stream, everything counted in images.

    Args:
        learning_rate, betas, weight_decay: of AdamW.
        schedule: ``cosine`` falls to 0 at ``total_images``; ``constant`` stays.
        warmup_images: the learning rate rises linearly over these.
        total_images: length of training.
        batch_size: images per optimizer step, from the data.
        parts: names of the parts of the loss, each logged where there are several.

    Attributes:
        classes: class names, in label order; empty where labels have no part.
        losses: per image of the last batch, for the non-finite guard.
        shown: what a progress bar may read when it draws, by name.
        gradient_norm: of the step at hand, before clipping; what the guard has measured of it.
        config: the resolved configuration of the run.
        steps: optimizer steps before the one at hand.
    """

    classes: tuple[str, ...] = ()

    def __init__(
        self,
        learning_rate: float,
        betas: tuple[float, float],
        weight_decay: float,
        schedule: Literal["cosine", "constant"],
        warmup_images: int,
        total_images: int,
        batch_size: int,
        parts: Sequence[str],
    ) -> None:
        super().__init__()
        if total_images < 1 or warmup_images < 0:
            raise UserError(
                f"model.total_images = {total_images} must be at least 1 and model.warmup_images ="
                f" {warmup_images} at least 0."
            )
        for name, value, right, range_ in (
            ("learning_rate", learning_rate, 0 < learning_rate < math.inf, "above 0"),
            ("weight_decay", weight_decay, 0 <= weight_decay < math.inf, "at least 0"),
            ("betas", betas, all(0 <= beta < 1 for beta in betas), "at least 0 and below 1"),
        ):
            if not right:
                raise UserError(f"model.{name} is {value}; it must be {range_}.")
        self.learning_rate, self.betas, self.weight_decay = learning_rate, betas, weight_decay
        self.schedule, self.warmup_images = schedule, warmup_images
        self.total_images, self.batch_size = total_images, batch_size
        logged = ("loss", *parts) if len(parts) > 1 else ("loss",)
        self.held_out = torch.nn.ModuleDict({name: MeanMetric() for name in logged})
        self.steps = 0
        self.losses: Tensor | None = None
        self.shown: dict[str, Tensor | float] = {}
        self.gradient_norm: Tensor | None = None
        self.config: dict[str, Any] = {}

    def images_after(self, steps: int) -> int:
        """What loggers count in: the images of so many optimizer steps."""
        return steps * self.batch_size

    @abstractmethod
    def loss_parts(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The parts of the objective on a batch of the stream, each (B,); their sum is the loss."""

    @abstractmethod
    def levels(self, batch: dict[str, Tensor]) -> Tensor:
        """What the loss of each image of a batch is taken at, (B,): its σ, say."""

    @abstractmethod
    def title(self) -> str:
        """What is trained, in a few words."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the weights, plain data; ``model`` says of what model."""

    def configure_model(self) -> None:
        """Leaves this device its part of the weights, under a strategy that shares them out."""
        if self.device_mesh is not None and not isinstance(self, FSDPModule):
            share_weights(self, self.device_mesh["data_parallel"])

    def on_train_batch_start(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.steps = self.trainer.global_step

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Numbers reach loggers at logged steps alone, where they are those of all ranks: a number
        that is read or written makes the host wait for a device."""
        values = _with_total(self.loss_parts(batch))
        self.losses = values["loss"].detach()
        logged = is_logged(self.trainer, self.trainer.global_step + 1)
        if logged:
            self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"])
        for name in self.held_out:
            mean = values[name].detach().mean()
            self.log(f"train/{name}", self._over_ranks(mean) if logged else mean)
        self.shown["train/loss"] = self.losses.mean()
        return values["loss"].mean()

    def _over_ranks(self, mean: Tensor) -> Tensor:
        over_ranks = self.trainer.strategy.reduce(mean, reduce_op="mean")
        assert isinstance(over_ranks, Tensor)
        return over_ranks

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._held_out("val", batch)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._held_out("test", batch)

    def _held_out(self, stage: str, batch: dict[str, Tensor]) -> None:
        values = _with_total(self.loss_parts(batch))
        images = float(self.images_after(self.trainer.global_step))
        self.log("step", images, on_step=False, on_epoch=True, reduce_fx="max")
        for name, metric in self.held_out.items():
            assert isinstance(metric, MeanMetric)
            metric.update(values[name])
            self.log(
                f"{stage}/{name}", metric, prog_bar=name == "loss", on_step=False, on_epoch=True
            )

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.parameters(),
            lr=self.learning_rate,
            betas=self.betas,
            weight_decay=self.weight_decay,
            fused=self._fused,
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._learning_rate_factor)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    @property
    def _fused(self) -> bool:
        """Whether one kernel takes the optimizer's step, as devices have it."""
        return next(self.parameters()).device.type in ("cuda", "mps", "xpu")

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """By the norm that the guard has measured, where it has."""
        norm, self.gradient_norm = self.gradient_norm, None
        if norm is None or not gradient_clip_val or gradient_clip_algorithm not in (None, "norm"):
            super().configure_gradient_clipping(
                optimizer, gradient_clip_val, gradient_clip_algorithm
            )
        else:
            torch.nn.utils.clip_grads_with_norm_(self.parameters(), gradient_clip_val, norm)

    def _learning_rate_factor(self, step: int) -> float:
        images = step * self.batch_size
        warmup = min(1.0, (images + self.batch_size) / max(self.warmup_images, 1))
        if self.schedule == "constant":
            return warmup
        return warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, images / self.total_images)))

    def on_train_start(self) -> None:
        """The configured rate, betas and decay hold where a checkpoint has brought its own, and the
        kernels are those of this device."""
        (scheduler,) = (config.scheduler for config in self.trainer.lr_scheduler_configs)
        assert isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR)
        rate = self.learning_rate * self._learning_rate_factor(scheduler.last_epoch)
        for group in scheduler.optimizer.param_groups:
            group |= {
                "lr": rate,
                "initial_lr": self.learning_rate,
                "betas": self.betas,
                "weight_decay": self.weight_decay,
                "fused": self._fused,
            }
        for parameter, state in scheduler.optimizer.state.items():  # of a run on another device
            if "step" in state:
                state["step"] = state["step"].to(parameter.device if self._fused else "cpu")
        scheduler.base_lrs = [self.learning_rate for _ in scheduler.base_lrs]
        scheduler._last_lr = [rate for _ in scheduler.base_lrs]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A step takes whole batches, also where it was made of fewer or more of them before:
        Lightning goes on counting these."""
        batches = checkpoint["global_step"] * self.trainer.accumulate_grad_batches
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for counts in (progress["total"], progress["current"]):
            counts |= dict.fromkeys(counts, batches)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[CHECKPOINT_KEY] = self.describe() | {"noise": RULE}


def is_logged(trainer: pl.Trainer, step: int) -> bool:
    """Whether loggers are told of the optimizer step of this number, from 1."""
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return bool(every) and step % every == 0


def _with_total(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """The parts and their sum, ``loss``, each (B,)."""
    return parts | {"loss": torch.stack(list(parts.values())).sum(0)}
