"""A callback that tells what the processes of a run exchanged in each of ten steps."""

from collections import Counter
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

FIRST, LAST = 3, 12


class Collectives(Callback):
    """Prints the calls of gloo by name, a step's on the average."""

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, number: int
    ) -> None:
        if number == FIRST:
            self.profile = torch.profiler.profile()
            self.profile.start()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, number: int
    ) -> None:
        if number == LAST:
            self.profile.stop()
            calls = Counter(e.name for e in self.profile.events() if e.name.startswith("gloo:"))
            told = {name: count / (LAST - FIRST + 1) for name, count in calls.items()}
            print(f"rank {trainer.global_rank}: {dict(sorted(told.items()))}", flush=True)
