"""A callback for training processes that are to get signals at a certain step."""

import os
import signal
from typing import Any

from lightning.pytorch import Callback, Trainer


class SignalAtStep(Callback):
    """Sends its own process the signals after a step, on some ranks alone."""

    def __init__(self, step: int, signals: list[str], ranks: list[int]) -> None:
        self.step, self.signals, self.ranks = step, signals, ranks

    def on_train_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        if trainer.global_step == self.step and trainer.global_rank in self.ranks:
            for name in self.signals:
                os.kill(os.getpid(), signal.Signals[name])
