"""Stops a run that diverges, or does not learn, before its weights are touched, and makes no host
wait for a device."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.distributed.tensor import DTensor

from energydiff.errors import UserError
from energydiff.ranks import rank_count
from energydiff.training.nonfinite import Share, keep, share_of
from energydiff.training.stream import Item
from energydiff.training.stream_module import StreamModule

NAMED = 5  # parameters that an error names


class NonFiniteError(UserError):
    """A loss or gradient is NaN or infinite; the weights are those of the step before."""


@dataclass(frozen=True)
class _Step:
    """What tells whether a step was good, and what to say if not.

    Attributes:
        told: (2,) where training runs, the largest of any rank: 1 if the step was not good, and
            what ranks ask of one another.
        seen: a copy of it that the host may look at once ``ready``.
        batches: those accumulated since the step before, with their losses.
    """

    number: int
    told: Tensor
    seen: Tensor
    ready: Any
    losses: Tensor
    norm: Tensor
    batches: Sequence[Item]


class NonFiniteGuard(Callback):
    """Raises on every rank if any rank's loss or gradient norm is not finite, and before the first
    step if a gradient is missing.

    On a GPU the optimizer is handed the verdict and leaves its weights alone; the host reads it
    when the next step begins, or a checkpoint is to be written.

    Attributes:
        asked: a number below 2²⁴ that this rank asks of all with its next step; 0: nothing.
        agreed: the largest that any rank asked with the last step looked at, on every rank.
    """

    def __init__(self) -> None:
        self.asked = self.agreed = 0
        # Each batch accumulated since the last step, with its losses.
        self._seen: list[tuple[Tensor, Item]] = []
        self._last: _Step | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._first_step = trainer.global_step

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._look(trainer)
        self._batch = batch

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, StreamModule) and pl_module.losses is not None
        self._seen.append((pl_module.losses, self._batch))

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        assert isinstance(pl_module, StreamModule)
        each, batches = zip(*self._seen, strict=True)
        losses = torch.cat(each)
        self._seen.clear()
        if trainer.global_step == self._first_step:
            _require_gradients(pl_module)
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        pl_module.gradient_norm = norm
        bad = (~(torch.isfinite(losses).all() & torch.isfinite(norm))).float()
        told = torch.stack([bad, torch.full_like(bad, self.asked)])  # filled there: no copy waits
        if trainer.world_size > 1:
            torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
        seen, ready = _to_host(told)
        self._last = _Step(trainer.global_step, told, seen, ready, losses, norm, batches)
        if ready is None or not skips_bad_steps(optimizer):
            self._look(trainer)
        else:
            optimizer.found_inf = told[0]  # type: ignore[attr-defined]

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._look(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._look(trainer)

    def _look(self, trainer: pl.Trainer) -> None:
        """Takes note of what was asked with the last step, and raises if it was bad."""
        step, self._last = self._last, None
        if step is None:
            return
        if step.ready is not None:
            step.ready.synchronize()
        bad, asked = step.seen.tolist()
        self.agreed = int(asked)
        if not bad:
            return
        share = share_of(trainer, step.batches, step.losses, step.norm)
        shares = [share]
        if trainer.world_size > 1:
            shares = [share] * trainer.world_size
            torch.distributed.all_gather_object(shares, share)
        kept = None if trainer.fast_dev_run else keep(trainer, step.number, shares, step.batches)  # type: ignore[attr-defined]
        raise NonFiniteError(_sentence(step.number, shares, kept))


def _require_gradients(module: StreamModule) -> None:
    """``UserError``, on every rank alike, if any has a parameter that is learned and got no
    gradient.

    Optimizers pass over it in silence: a network that leaves it out, or a way of sharing weights
    out that loses what comes back, would train nothing.
    """
    learned = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    missing = {name for name, p in learned if p.grad is None}
    if rank_count() > 1:
        of_ranks = [missing] * rank_count()
        torch.distributed.all_gather_object(of_ranks, missing)
        missing = set().union(*of_ranks)
    if missing:
        named = ", ".join(sorted(missing)[:NAMED]) + (", …" if len(missing) > NAMED else "")
        raise UserError(
            f"{len(missing)} of {len(learned)} parameters got no gradient in the first step and"
            f" would never be learned: {named}. Leave them out of the network, or have those that"
            " are not to be learned say so with requires_grad_(False)."
        )


def skips_bad_steps(optimizer: torch.optim.Optimizer) -> bool:
    """Whether its kernels read ``found_inf`` themselves, as the fused ones do."""
    return all(group.get("fused") for group in optimizer.param_groups)


def _to_host(numbers: Tensor) -> tuple[Tensor, Any]:
    """A copy for the host, and the event that says it is there; ``None`` where reading waits."""
    if numbers.device.type != "cuda":
        return numbers, None
    seen = torch.empty_like(numbers, device="cpu", pin_memory=True)
    seen.copy_(numbers, non_blocking=True)
    ready = torch.cuda.Event()
    ready.record()
    return seen, ready


def _sentence(step: int, shares: Sequence[Share], kept: Path | None) -> str:
    # One rank's bad loss spoils the averaged gradient of all, so say whose loss it was.
    culprits = [
        f"rank {share.rank}: the loss of sample indices {share.culprits}"
        for share in shares
        if share.culprits
    ] or [
        f"rank {share.rank}: a gradient norm of {share.norm} from sample indices {share.indices}"
        for share in shares
    ]
    again = f" (energydiff replay {kept} takes the step again)" if kept else ""
    return (
        f"training stopped before step {step}: not finite on {'; '.join(culprits)}. The weights"
        f" are unchanged; lower model.learning_rate or look at these samples{again}."
    )
