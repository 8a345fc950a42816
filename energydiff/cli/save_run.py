"""What fit writes into the run folder before it starts."""

import platform
from importlib.metadata import distributions
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.cli import SaveConfigCallback

from energydiff.files import write_json, write_whole
from energydiff.training.loggers import log_configuration
from energydiff.training.stream_module import StreamModule


class SaveRun(SaveConfigCallback):
    """Writes the resolved configuration and the environment into the run folder, and tells the
    loggers, on fit."""

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        run = Path(trainer.default_root_dir)
        run.mkdir(parents=True, exist_ok=True)
        assert isinstance(pl_module, StreamModule)
        changes = "".join(
            f"# {change['setting']}: {change['from']} until image {change['images']},"
            f" then {change['to']}\n"
            for change in pl_module.config.get("changed", [])
        )
        settings = self.parser.dump(self.config, skip_none=False)
        write_whole(run / "config.yaml", f"{changes}{settings}".encode())
        environment = {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "threads": torch.get_num_threads(),
            "packages": {d.name: d.version for d in distributions()},
        }
        write_json(run / "environment.json", environment)
        log_configuration(trainer.loggers, pl_module.config)
