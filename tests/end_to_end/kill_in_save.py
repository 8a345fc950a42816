"""A callback for a training process that is to be killed while it writes a checkpoint."""

import os
import random
import signal
import threading
import time
from typing import Any, BinaryIO

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

SECONDS = 0.4  # that a save takes


class KillInSave(Callback):
    """Makes saves slow, and kills its process at a random moment of the second one."""

    def __init__(self, seed: int) -> None:
        self.after = SECONDS * random.Random(seed).uniform(0, 1.1)
        self.saves = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        save = torch.save

        def slowly(content: Any, stream: BinaryIO) -> None:
            self.saves += 1
            if self.saves == 2:
                kill = (os.getpid(), signal.SIGKILL)
                threading.Timer(self.after, os.kill, kill).start()
            save(content, _Slow(stream))

        torch.save = slowly


class _Slow:
    """Waits with every piece that is written."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.pieces = stream, 0

    def write(self, piece: bytes) -> int:
        self.pieces += 1
        if self.pieces <= 80:  # of some 100
            time.sleep(SECONDS / 80)
        return self.stream.write(piece)

    def flush(self) -> None:
        self.stream.flush()
