"""Stops a diverging run before its weights are touched."""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from energydiff.errors import UserError
from energydiff.training.stream_module import StreamModule


class NonFiniteError(UserError):
    """A loss or gradient is NaN or infinite; the weights are those of the step before."""


class NonFiniteGuard(Callback):
    """Raises on every rank if any rank's loss or gradient norm is not finite."""

    def __init__(self) -> None:
        # Losses and sample indices of each batch accumulated since the last step.
        self._seen: list[tuple[Tensor, Tensor]] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._indices = batch["index"]

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, StreamModule) and pl_module.losses is not None
        self._seen.append((pl_module.losses, self._indices))

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        losses, indices = (torch.cat(parts) for parts in zip(*self._seen, strict=True))
        self._seen.clear()
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        bad = ~torch.isfinite(losses)
        mine = bool(bad.any()) or not bool(torch.isfinite(norm))
        if trainer.strategy.reduce_boolean_decision(not mine, all=True):
            return
        # One rank's bad loss spoils the averaged gradient of all, so say whose loss it was.
        report = (trainer.global_rank, indices[bad].tolist(), float(norm), indices.tolist())
        reports = [report]
        if trainer.world_size > 1:
            reports = [report] * trainer.world_size
            torch.distributed.all_gather_object(reports, report)
        raise NonFiniteError(_sentence(trainer.global_step, reports))


def _sentence(step: int, reports: list[tuple[int, list[int], float, list[int]]]) -> str:
    culprits = [
        f"rank {rank}: the loss of sample indices {indices}"
        for rank, indices, _, _ in reports
        if indices
    ] or [
        f"rank {rank}: a gradient norm of {norm} from sample indices {batch}"
        for rank, _, norm, batch in reports
    ]
    return (
        f"training stopped before step {step}: not finite on {'; '.join(culprits)}. The weights"
        " are unchanged; lower model.learning_rate or look at these samples."
    )
