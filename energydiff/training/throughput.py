"""How fast training goes, and what it waits for."""

import sys
import time
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.throughput import get_available_flops
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.distributed.tensor import DTensor

from energydiff.evaluation.cost import operations
from energydiff.training.data import WaitedLoader
from energydiff.training.stream_module import StreamModule, is_logged

SMOOTHING = 0.05  # images per second are averaged over about the last 20 steps


class Throughput(Callback):
    """Logs how fast training goes, and makes the images seen the step of what else it logs.

    ``images_per_second`` over all ranks; ``data_wait``, the share of this rank's time since it was
    last logged in which it waited for a batch; ``teraflops``, 10^12 operations a second over all
    ranks, of which the matrix products and convolutions of one image's loss and gradient are
    counted once, in the first step and in eager execution, unless devices have but parts of the
    weights; ``utilisation``, its share of what the devices are made for, where Lightning knows
    that; ``memory_peak_gib``, the largest of any rank: of a CUDA device what tensors took at most,
    elsewhere of the process.
    """

    def __init__(self) -> None:
        self._last: float | None = None
        self._rate: float | None = None
        self._operations: int | None = None
        self._looked, self._waited = 0.0, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._looked, self._waited = time.monotonic(), _waited(trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        whole = not any(isinstance(weight, DTensor) for weight in pl_module.parameters())
        if self._operations is None and trainer.loggers and whole:
            assert isinstance(pl_module, StreamModule)
            with trainer.precision_plugin.forward_context():
                self._operations = operations_per_image(pl_module, batch)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        assert isinstance(pl_module, StreamModule)
        logged = is_logged(trainer, trainer.global_step)
        if logged:
            pl_module.log("step", float(pl_module.images_after(trainer.global_step)))
        now = time.monotonic()
        if self._last is not None:
            images = pl_module.batch_size / trainer.accumulate_grad_batches
            rate = images / max(now - self._last, 1e-9)
            self._rate = (
                rate if self._rate is None else self._rate + SMOOTHING * (rate - self._rate)
            )
            pl_module.shown["images_per_second"] = self._rate
        self._last = now
        if logged and self._rate is not None:
            for name, value in self._measured(trainer, self._rate).items():
                pl_module.log(name, value)

    def _measured(self, trainer: pl.Trainer, rate: float) -> dict[str, float]:
        device = trainer.strategy.root_device
        found = {"images_per_second": rate}
        now, waited = time.monotonic(), _waited(trainer)
        found["data_wait"] = (waited - self._waited) / max(now - self._looked, 1e-9)
        self._looked, self._waited = now, waited
        if self._operations is not None:
            found["teraflops"] = rate * self._operations / 1e12
            dtype = torch.bfloat16 if "bf16" in str(trainer.precision) else torch.float32
            if peak := get_available_flops(device, dtype):
                found["utilisation"] = found["teraflops"] * 1e12 / (peak * trainer.world_size)
        if memory := peak_memory(device):
            found["memory_peak_gib"] = trainer.strategy.reduce(  # type: ignore[assignment]
                torch.tensor(memory / 2**30, device=device), reduce_op="max"
            )
        return found


def operations_per_image(module: StreamModule, batch: dict[str, Tensor]) -> int:
    """Floating-point operations of the loss of a batch's first image and of its gradient.

    Nothing of the module changes, nor any random state.
    """
    first = {name: value[:1] for name, value in batch.items()}
    learned = [p for p in module.parameters() if p.requires_grad]
    before = [buffer.clone() for buffer in module.buffers()]

    def step() -> None:
        loss = torch.stack(list(module.loss_parts(first).values())).sum()
        torch.autograd.grad(loss, learned, allow_unused=True)

    compilers = {part: part.compiler for part in module.modules() if hasattr(part, "compiler")}
    for part in compilers:  # whose kernels could not be counted
        setattr(part, "compiler", None)  # noqa: B010
    device = first["raw"].device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        counted = operations(step)
    for part, compiler in compilers.items():
        setattr(part, "compiler", compiler)  # noqa: B010
    for buffer, value in zip(module.buffers(), before, strict=True):
        buffer.copy_(value)
    return counted


def peak_memory(device: torch.device) -> int:
    """The most bytes that tensors took on a CUDA device, or this process elsewhere; 0: unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource

    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return resident if sys.platform == "darwin" else resident * 1024


def _waited(trainer: pl.Trainer) -> float:
    loader = trainer.train_dataloader
    return loader.waited if isinstance(loader, WaitedLoader) else 0.0
