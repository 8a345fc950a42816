"""A signal is acted upon between two steps, wherever its handler ran."""

import os
import signal
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from energydiff.saving import LAST_CHECKPOINT
from energydiff.training import DiffusionModule, NonFiniteGuard, guard
from energydiff.training.stop import StopOnSignal, Stopped

STEP = 3


class Asked(pl.Callback):
    """Sends SIGTERM in the middle of the step after STEP others."""

    def on_after_backward(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.global_step == STEP:
            os.kill(os.getpid(), signal.SIGTERM)


class Late(NonFiniteGuard):
    """As on a device: what ranks told one another is there when the next step begins."""

    def on_before_optimizer_step(self, trainer, module, optimizer: torch.optim.Optimizer) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(guard, "_to_host", lambda told: (told, Arrived()))
            super().on_before_optimizer_step(trainer, module, optimizer)


class Arrived:
    def synchronize(self) -> None:
        pass


@pytest.mark.parametrize(("kind", "steps"), [(NonFiniteGuard, STEP + 1), (Late, STEP + 2)])
def test_the_step_at_hand_is_finished_and_on_a_device_the_next(
    kind: type[NonFiniteGuard], steps: int, make_trainer, module, data, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(DiffusionModule, "_fused", True)
    watch = kind()
    callbacks = [StopOnSignal(watch), Asked(), watch]
    trainer = make_trainer(max_steps=9, callbacks=callbacks, enable_checkpointing=True)
    with pytest.raises(Stopped, match="stopped by SIGTERM") as end:
        trainer.fit(module, data)
    assert end.value.code == 143
    saved: dict[str, Any] = torch.load(tmp_path / LAST_CHECKPOINT, weights_only=True)
    assert saved["global_step"] == trainer.global_step == steps


def test_what_is_switched_off_in_lightning_is_still_there() -> None:
    assert callable(_TrainingEpochLoop._broadcast_sigterm_tensor)
    assert callable(_SignalConnector.register_signal_handlers)
