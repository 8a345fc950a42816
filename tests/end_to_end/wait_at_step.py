"""A callback for a training process that is to be killed at a certain step."""

import os
import time
from typing import Any

from lightning.pytorch import Callback, Trainer


class WaitAtStep(Callback):
    """Says so and waits after the step named in WAIT_AT_STEP; does nothing without one."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        if os.environ.get("WAIT_AT_STEP") == str(trainer.global_step):
            print("waiting", flush=True)
            time.sleep(600)
