"""The data module: any source of ``energydiff.data`` as a counted stream."""

import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities import suggested_max_num_workers
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader

from energydiff.data import DataSpec, Digits, Source, Splits, Subset, understood
from energydiff.data.split import require_held_out
from energydiff.errors import UserError
from energydiff.registry import build_recorded
from energydiff.training.stream import (
    CountedBatches,
    HeldOut,
    Item,
    TrainingStream,
    with_held_out_draws,
    with_training_draws,
)
from energydiff.training.stretches import recorded, resumed

SIGMA_DATA_SAMPLES = 4_096
WORKERS = 4


class WaitedLoader(DataLoader[Item]):
    """A loader that knows for how long it was waited for.

    Attributes:
        waited: seconds.
    """

    waited = 0.0

    def __iter__(self) -> Iterator[Item]:  # type: ignore[override]
        batches = super().__iter__()
        while True:
            begun = time.monotonic()
            batch = next(batches, None)
            self.waited += time.monotonic() - begun
            if batch is None:
                return
            yield batch


class DiffusionData(pl.LightningDataModule):
    """Data for training and held-out loss.

    Args:
        source: where samples come from; docs/data.md has the sources and their options.
        subset: train on so many of the training samples, in nested parts.
        flip: mirror training images left to right at random.
        sigma_data: RMS of the normalised data about zero; if not given, estimated on all training
            samples, of a subset too.
        batch_size: images per optimizer step, over all devices and accumulated batches.
        num_workers: loader processes per device; by default none for arrays and, for pictures that
            are decoded when asked for, 4 or what the processors allow, one of which is left to the
            training process.
        seed: of the order, the flips, σ and the noise.
    """

    def __init__(
        self,
        source: DataSpec = Digits(),  # noqa: B008
        subset: Subset | None = None,
        flip: bool = False,
        sigma_data: float | None = None,
        batch_size: int = 64,
        num_workers: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise UserError(f"data.batch_size is {batch_size}; it must be at least 1.")
        everything, self.held_out_source = source.open()
        self.train_source = subset.of(everything) if subset else everything
        splits = Splits(self.train_source, self.held_out_source)
        self.understood, self._told = understood(splits), False
        self.shape = self.train_source.shape
        self.normalization = self.train_source.normalization
        self.classes = self.train_source.classes
        self.num_classes = len(self.classes)
        if flip and len(self.shape) != 3:
            raise UserError(f"data.flip mirrors images, but samples have shape {self.shape}.")
        self.sigma_data = sigma_data if sigma_data is not None else _estimate_sigma_data(everything)
        self.flip, self.batch_size, self.num_workers, self.seed = (
            flip,
            batch_size,
            num_workers,
            seed,
        )
        self.stream = TrainingStream(self.train_source, seed)
        self._record: list[dict[str, Any]] = []

    @classmethod
    def of_run(cls, config: Mapping[str, Any]) -> "DiffusionData":
        """The data of a run, from its recorded configuration.

        Raises:
            UserError: the configuration names none, or they cannot be opened any more.
        """
        if "data" not in config:
            raise UserError("this model's file does not say what data it was trained on.")
        recorded = dict(config["data"])
        source, what = recorded.pop("source"), "the data.source of the run"
        if recorded.get("subset"):
            recorded["subset"] = Subset(**recorded["subset"])
        return cls(build_recorded(DataSpec, source, what), **recorded)  # type: ignore[type-abstract]

    def state_dict(self) -> dict[str, Any]:
        """What passes are made of, for a run whose data may have changed when it goes on."""
        assert self.trainer is not None
        self._record = self._record or recorded(self.stream.stretches, self.train_source)
        return {"images": self.trainer.global_step * self.batch_size, "stretches": self._record}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """``UserError`` where these are other data altogether."""
        stretches = resumed(state_dict["stretches"], state_dict["images"], self.train_source)
        self.stream = TrainingStream(self.train_source, self.seed, stretches)
        self._record = []

    def prepare_data(self) -> None:
        """Says once, on the first rank, what was understood of the data."""
        if not self._told:
            rank_zero_info(self.understood)
            self._told = True

    def train_dataloader(self) -> DataLoader[Item]:
        assert self.trainer is not None
        if self.trainer.limit_train_batches != 1.0 and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            raise UserError(
                "trainer.limit_train_batches would repeat the same images and noise: training is"
                " one stream, so set model.total_images instead."
            )
        parts = self.trainer.world_size * self.trainer.accumulate_grad_batches
        if self.batch_size % parts:
            raise UserError(
                f"data.batch_size {self.batch_size} must be divisible by devices ×"
                f" accumulate_grad_batches = {parts}."
            )
        batches = CountedBatches(
            self.batch_size // self.trainer.accumulate_grad_batches,
            start=self.trainer.global_step * self.batch_size,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )
        return self._loader(self.stream, batches)

    def on_after_batch_transfer(self, batch: Item, dataloader_idx: int) -> Item:
        """What is random about a batch is drawn on the device where it is used."""
        assert self.trainer is not None
        if self.trainer.training:
            return with_training_draws(batch, self.seed, self.flip)
        return with_held_out_draws(batch, self.seed)

    @property
    def watched_source(self) -> Source:
        """What a run is watched on: held-out samples, or training samples where there are none."""
        return self.held_out_source if len(self.held_out_source) else self.train_source

    def val_dataloader(self) -> DataLoader[Item] | list[DataLoader[Item]]:
        assert self.trainer is not None
        if self.trainer.state.fn == TrainerFn.FITTING and not len(self.held_out_source):
            return []  # there is no held-out loss then
        held_out = HeldOut(require_held_out(self.held_out_source, "this command"))
        rank, ranks = self.trainer.global_rank, self.trainer.world_size
        # Of fewer images than ranks everybody takes all: the mean is the same, and nobody is idle.
        shared = len(held_out) >= ranks
        mine = range(rank, len(held_out), ranks) if shared else range(len(held_out))
        size = max(1, self.batch_size // ranks)
        batches = [list(mine[i : i + size]) for i in range(0, len(mine), size)]
        return self._loader(held_out, batches)

    def test_dataloader(self) -> DataLoader[Item] | list[DataLoader[Item]]:
        return self.val_dataloader()

    def _loader(self, dataset, batches) -> DataLoader[Item]:  # type: ignore[no-untyped-def]
        assert self.trainer is not None
        workers = self.num_workers
        if workers is None:
            most = suggested_max_num_workers(self.trainer.num_devices)
            workers = min(WORKERS, most) if self.train_source.decoded else 0
        return WaitedLoader(
            dataset,
            batch_sampler=batches,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=self.trainer.strategy.root_device.type == "cuda",
        )


def _estimate_sigma_data(source: Source) -> float:
    rms = math.sqrt(source.mean_square(SIGMA_DATA_SAMPLES))
    if not (math.isfinite(rms) and rms > 0):
        raise UserError(
            f"the RMS of the training data is {rms}; give data.sigma_data and check the data."
        )
    return round(rms, 6)
