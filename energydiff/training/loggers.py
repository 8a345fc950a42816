"""The loggers of a run: whatever is chosen, the run folder holds its record and what it writes."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger
from PIL import Image


def keep_in_run(config: Any, run: Path) -> None:
    """Give the chosen loggers of a parsed configuration the run folder, where they have no place of
    their own: W&B and MLflow would write into the working directory."""
    for chosen in _chosen(config.trainer.logger):
        name, options = chosen.class_path.rpartition(".")[2], chosen.init_args
        if name == "WandbLogger" and options.save_dir in (None, "."):
            options.save_dir = str(run)
            run.mkdir(parents=True, exist_ok=True)  # W&B goes elsewhere where it is missing
        if name == "MLFlowLogger" and not options.tracking_uri:
            run.mkdir(parents=True, exist_ok=True)
            options.tracking_uri = f"sqlite:///{(run / 'mlflow.db').resolve()}"
            options.artifact_location = options.artifact_location or str((run / "mlruns").resolve())


def _chosen(logger: Any) -> Iterator[Any]:
    for one in logger if isinstance(logger, list) else [logger]:
        if hasattr(one, "class_path"):
            yield one


def run_loggers(chosen: Any, run: Path) -> list[Logger] | bool:
    """What is chosen (``None`` and ``True``: TensorBoard) beside the run's own record in CSV files.

    A new CSV version each start: resuming keeps the history of the first part.
    """
    if chosen is False:
        return False
    if chosen is None or chosen is True:
        chosen = TensorBoardLogger(run, name="logs", version="")
    loggers = [*chosen] if isinstance(chosen, list) else [chosen]
    return [*loggers, CSVLogger(run, "metrics")]


def log_configuration(loggers: Sequence[Logger], configuration: Mapping[str, Any]) -> None:
    """Tell every logger the resolved configuration of the run, on the first rank.

    MLflow refuses another value of a parameter it has: where its run goes on, what is changed
    becomes a tag, ``changed``.
    """
    for logger in loggers:
        if isinstance(logger, MLFlowLogger) and _is_gone_on(logger):
            changed = json.dumps(configuration.get("changed", []))
            logger.experiment.set_tag(logger.run_id, "changed", changed)
        else:
            logger.log_hyperparams(dict(configuration))


def _is_gone_on(logger: MLFlowLogger) -> bool:
    return bool(logger.experiment.get_run(logger.run_id).data.params)


def log_grid(loggers: Sequence[Logger], grid: Image.Image, images: int) -> None:
    """Show samples in every logger that takes pictures, on the first rank.

    images: seen in training until then.
    """
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            pixels = np.asarray(grid.convert("RGB"))
            logger.experiment.add_image("samples", pixels, images, dataformats="HWC")
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_image(logger.run_id, grid, f"samples/{images:09d}.png")
        elif hasattr(logger, "log_image"):  # Weights & Biases
            logger.log_image(key="samples", images=[grid], step=images)
