"""Checkpoints: written so that a kill cannot destroy them, opened to go on from or to measure."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import lightning.pytorch as pl
from lightning.fabric.plugins import CheckpointIO, TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import AsyncCheckpointIO

from energydiff.errors import UserError
from energydiff.potentials import Network
from energydiff.random import RULE
from energydiff.registry import with_defaults
from energydiff.saving import (
    CHECKPOINT_KEY,
    LAST_CHECKPOINT,
    differing,
    read_checkpoint,
    write_checkpoint,
)
from energydiff.training.resume import recorded_changes, require_measurable
from energydiff.training.stream_module import StreamModule


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of a run, its tensors not yet read.

    Attributes:
        file: where it lies.
        content: what it holds.
    """

    file: Path
    content: dict[str, Any]

    @classmethod
    def open(cls, file: str | Path) -> Self:
        """``UserError`` where there is no checkpoint, saying what there is."""
        file = Path(file)
        advice = f"give --ckpt_path a checkpoint, such as a run's {LAST_CHECKPOINT}"
        if (file / "model.yaml").is_file() or file.suffix == ".safetensors":
            raise UserError(
                f"{file} is an export, which holds no state of training: {advice}, or start from"
                " its weights with --init."
            )
        if file.is_dir():
            raise UserError(f"{file} is a folder: {advice}.")
        if not file.exists():
            raise UserError(f"{file} does not exist: train first, or give --ckpt_path.")
        return cls(file, read_checkpoint(file, mmap=True))

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration of its run."""
        return dict(self.content[CHECKPOINT_KEY]["config"])

    @property
    def steps(self) -> int:
        """Optimizer steps taken."""
        return int(self.content["global_step"])

    def go_on(self, module: StreamModule) -> None:
        """Checks that its run is the one configured, and records what is changed from here."""
        if not {"optimizer_states", "lr_schedulers", "global_step"} <= self.content.keys():
            raise UserError(
                f"{self.file} holds weights without the state of their training, and cannot be gone"
                " on from: use --init to start from its weights."
            )
        unfinished = module.images_after(self.steps) < module.total_images
        if unfinished and self.content[CHECKPOINT_KEY].get("noise") != RULE:
            raise UserError(
                f"{self.file} is of a run whose images and noise were drawn by another rule than"
                f" this version's ({RULE}), and the two are not mixed: finish it with the version"
                " that began it, or start a new run from its weights with --init."
            )
        changes = recorded_changes(self.config, module.config, str(self.file))
        old, new = list(self.content[CHECKPOINT_KEY].get("classes", [])), list(module.classes)
        if old != new:
            raise UserError(
                f"{self.file} was trained with the classes {old}, not {new}: restore the data, or"
                " choose another trainer.default_root_dir."
            )
        self._require_same_model(module)
        images = module.images_after(self.steps)
        module.config["changed"] = [
            *self.config.get("changed", []),
            *({"images": images, **change} for change in changes),
        ]

    def require_measurable(self, module: StreamModule) -> None:
        """``UserError`` if the held-out loss configured is not that of its run."""
        require_measurable(self.config, module.config, str(self.file))
        self._require_same_model(module)

    def _require_same_model(self, module: StreamModule) -> None:
        """``UserError`` where data or code have made another model of the same settings."""
        then, now = self.content[CHECKPOINT_KEY], module.describe()
        if then.get("format") != now["format"]:
            raise UserError(
                f"{self.file} has the format {then.get('format')!r}, and what is configured"
                f" {now['format']!r}: it is of another command or version, and only goes on there."
            )
        then, now = dict(then["model"]), now["model"]
        if "backbone" in then and then["backbone"]["class"] == now["backbone"]["class"]:
            network = with_defaults(Network, then["backbone"], f"the network of {self.file}")
            then["backbone"] = network
        if then != now:
            differ = sorted(name for name in {**then, **now} if then.get(name) != now.get(name))
            raise UserError(
                f"{self.file} is of another model than the one configured (they differ in"
                f" {', '.join(differ)}): choose another trainer.default_root_dir, or move that run"
                " away."
            )
        wrong = differing(self.content["state_dict"], module.state_dict())
        if wrong:
            raise UserError(
                f"{self.file} is of another version of this model ({len(wrong)} tensors missing,"
                f" unknown or of another shape, first {wrong[0]}): go on with the version that"
                " began it, or choose another trainer.default_root_dir."
            )


def last_checkpoint(folder: Path, every_steps: int) -> ModelCheckpoint:
    """Replaces ``last.ckpt`` every so many optimizer steps."""
    return ModelCheckpoint(
        folder,
        filename=LAST_CHECKPOINT.stem,
        every_n_train_steps=every_steps,
        enable_version_counter=False,
    )


class NumberedCheckpoints(ModelCheckpoint):
    """Keeps checkpoints by the images seen: ``000064000.ckpt`` after 64,000.

    Args:
        prefix: of their names.
        when: Lightning's options of when to save, and what to keep.
    """

    def __init__(self, folder: Path, prefix: str = "", **when: Any) -> None:
        super().__init__(folder, enable_version_counter=False, **when)
        self._prefix = prefix

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        assert isinstance(pl_module, StreamModule)
        self._images = lambda: pl_module.images_after(trainer.global_step)
        super().setup(trainer, pl_module, stage)

    def format_checkpoint_name(self, *_: Any, **__: Any) -> str:
        """By the images seen."""
        return str(Path(str(self.dirpath)) / f"{self._prefix}{self._images():09d}.ckpt")


def every_checkpoint(folder: Path, every_steps: int) -> ModelCheckpoint:
    """Keeps a checkpoint every so many optimizer steps."""
    return NumberedCheckpoints(folder, every_n_train_steps=every_steps, save_top_k=-1)


def best_checkpoints(folder: Path, count: int) -> ModelCheckpoint:
    """Keeps as many checkpoints as had the lowest held-out loss: ``best_000064000.ckpt``."""
    return NumberedCheckpoints(folder, "best_", monitor="val/loss", save_top_k=count)


class WholeCheckpointIO(TorchCheckpointIO):
    """Replaces a checkpoint in one step, on the file system where it lies.

    Lightning writes it to the folder for temporary files and moves it, which is a copy over the old
    one where that is another file system: killed then, a run has neither.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """To a local file; ``storage_options`` have no meaning there and are refused."""
        if storage_options is not None:
            raise TypeError("storage_options are for remote file systems")
        write_checkpoint(checkpoint, Path(path))


def with_whole_checkpoints(plugins: Any) -> list[Any]:
    """One of Lightning's plugins or several, with :class:`WholeCheckpointIO` where none of them
    writes checkpoints, or under the one that writes them while training goes on."""
    plugins = [*plugins] if isinstance(plugins, list) else [plugins]
    for plugin in plugins:
        if isinstance(plugin, AsyncCheckpointIO) and plugin.checkpoint_io is None:
            plugin.checkpoint_io = WholeCheckpointIO()
    if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
        plugins.append(WholeCheckpointIO())
    return plugins
