"""One rank of a training run in a process that is to be killed."""

import os
import signal
from pathlib import Path
from typing import Any

import energydiff  # noqa: F401  (before torchvision)

# isort: split
import torch
from lightning.pytorch import Callback, Trainer

from energydiff.cli import main


class TellSteps(Callback):
    """A file grows by a byte with every step."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.is_global_zero:
            with self.file.open("ab") as file:
                file.write(b".")


def fit(arguments: list[str], log: str, rank: int, ranks: int, port: int) -> None:
    """As torchrun starts it."""
    with Path(log).open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell may have had ignored
    torch.set_num_threads(1)
    if ranks > 1:
        os.environ |= {
            "TORCHELASTIC_RUN_ID": "killed",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(ranks),
            "LOCAL_WORLD_SIZE": str(ranks),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "GROUP_RANK": "0",
        }
    raise SystemExit(main(arguments))
