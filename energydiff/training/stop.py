"""A signal ends training after the step at hand: on every rank, with its last checkpoint written.

Schedulers send SIGTERM or SIGUSR1, to some processes of a run or to all, some time before they
kill them. Ctrl-C is SIGINT.
"""

import os
import signal
import subprocess
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_warn

from energydiff.saving import LAST_CHECKPOINT
from energydiff.training.guard import NonFiniteGuard

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stopped(BaseException):
    """Training has ended as a signal asked, and its last checkpoint is written.

    Attributes:
        signal: the one that was agreed upon.
        code: what the process should exit with: 130 after Ctrl-C, 143 after what schedulers send.
    """

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        self.code = 128 + (signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)
        super().__init__(f"stopped by {self.signal.name}")


class StopOnSignal(Checkpoint):
    """Raises :class:`Stopped` on all ranks once any of them got a signal.

    A handler only takes note, for ranks must not exchange anything at a moment of their own: what
    they tell one another of every step carries the signal too. After SIGUSR1 a SLURM job is put
    back into the queue. A second SIGINT ends the process at once. As a ``Checkpoint`` it comes
    after all callbacks but those that write checkpoints.

    Args:
        guard: tells the other ranks.
    """

    def __init__(self, guard: NonFiniteGuard) -> None:
        self._guard, self._step = guard, -1
        self._before: dict[signal.Signals, Any] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        # Lightning's own handlers exchange with other ranks and save, at any moment; its loop asks
        # them before every batch, and waits for the answer.
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        loop = trainer.fit_loop.epoch_loop
        loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
        if threading.current_thread() is threading.main_thread():  # others cannot have handlers
            self._before = {number: signal.signal(number, self._take_note) for number in SIGNALS}

    def _take_note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._guard.asked:
            raise KeyboardInterrupt
        self._guard.asked = self._guard.asked or number

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        step, before = trainer.global_step, self._step
        self._step = step
        if not self._guard.agreed or step == before:  # the same: between accumulated batches
            return
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            file = Path(trainer.default_root_dir) / LAST_CHECKPOINT
            trainer.save_checkpoint(file, weights_only=False)
        if self._guard.agreed == signal.SIGUSR1:
            if trainer.is_global_zero:
                requeue()
            trainer.strategy.barrier()  # a launcher may kill all once one of them has left
        raise Stopped(self._guard.agreed)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._restore()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()


def requeue() -> None:
    """Asks SLURM to run this job once more, if it is a job."""
    if SLURMEnvironment.job_id() is None:
        return
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:  # this task alone, and not the whole array
        job = "{SLURM_ARRAY_JOB_ID}_{SLURM_ARRAY_TASK_ID}".format_map(os.environ)
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
        failure = done.stderr.strip() if done.returncode else ""
    except OSError as error:
        failure = str(error)
    if failure:
        rank_zero_warn(
            f"SLURM's job {job} could not be requeued ({failure}): submit it again, and it goes on."
        )
