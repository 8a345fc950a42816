"""Progress in images: a rich bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from datetime import timedelta
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import ProcessingSpeedColumn

from energydiff.training.stream_module import StreamModule

SECONDS_BETWEEN_READINGS = 0.5


def progress_bar() -> ProgressBar:
    """The bar that suits standard output."""
    return ImageBar() if sys.stdout.isatty() else PlainProgress()


def read_metrics(trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
    """What a bar shows: of training, and of the last validation."""
    assert isinstance(pl_module, StreamModule)
    shown = {name: float(value) for name, value in pl_module.shown.items()}
    validated = trainer.progress_bar_metrics
    return shown | {name: value for name, value in validated.items() if name != "v_num"}


class ImageBar(RichProgressBar):
    """Lightning's rich bar over the images of the whole run, which has no epochs."""

    def __init__(self) -> None:
        super().__init__()
        self._read = -float("inf")
        self._metrics: dict[str, Any] = {}

    @property
    def total_train_batches(self) -> int | float:
        assert isinstance(self.trainer.lightning_module, StreamModule)
        return self.trainer.lightning_module.images_after(self.trainer.max_steps)

    def _update(self, progress_bar_id: Any, current: int, *args: Any, **kwargs: Any) -> None:
        if progress_bar_id == self.train_progress_bar_id:
            assert isinstance(self.trainer.lightning_module, StreamModule)
            current = self.trainer.lightning_module.images_after(self.trainer.global_step)
        super()._update(progress_bar_id, current, *args, **kwargs)

    def configure_columns(self, trainer: pl.Trainer) -> list[Any]:
        """Without batches per second: images per second are among the metrics."""
        columns = super().configure_columns(trainer)
        return [c for c in columns if not isinstance(c, ProcessingSpeedColumn)]

    def _get_train_description(self, current_epoch: int) -> str:
        return "Training"

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Read now and then: a number that is read makes the host wait for the device."""
        now = time.monotonic()
        if now - self._read > SECONDS_BETWEEN_READINGS:
            self._read, self._metrics = now, read_metrics(trainer, pl_module)
        return dict(self._metrics)


class PlainProgress(ProgressBar):
    """One line every ``every_seconds``, for logs and pipes."""

    def __init__(self, every_seconds: float = 10.0) -> None:
        super().__init__()
        self.every_seconds = every_seconds
        self._enabled = True
        self._last = -float("inf")

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._began, self._first = time.monotonic(), trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        done = trainer.global_step >= trainer.max_steps
        if not self._enabled or (time.monotonic() - self._last < self.every_seconds and not done):
            return
        self._last = time.monotonic()
        values = read_metrics(trainer, pl_module)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        assert isinstance(pl_module, StreamModule)
        images, total = map(pl_module.images_after, (trainer.global_step, trainer.max_steps))
        taken = max(trainer.global_step - self._first, 1)
        each = (time.monotonic() - self._began) / taken
        left = timedelta(seconds=round(each * (trainer.max_steps - trainer.global_step)))
        print(f"image {images:,} of {total:,}  {shown}  {left} left", flush=True)
