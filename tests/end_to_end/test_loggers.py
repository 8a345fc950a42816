"""Whatever logger is chosen, the run folder keeps its record, and the logger is told everything."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from energydiff.evaluation.logged import read_metrics

Metrics = Callable[[Path], dict[str, list[float]]]


@pytest.fixture
def fit(process, tiny_mlp: Path, tmp_path: Path) -> Callable[..., Path]:
    """Trains with a logger, in the folder ``run``."""

    def run(*options: object) -> Path:
        folder = tmp_path / "run"
        done = process(
            *("fit", "--config", tiny_mlp, "--trainer.default_root_dir", folder),
            *("--model.learning_rate", 0.25, *options),
        )
        assert done.code == 0, done.err
        return folder

    return run


def files_of_the_checkout() -> set[str]:
    """Processes run in the checkout, where a logger must leave nothing."""
    return {path.name for path in Path(__file__).parents[2].iterdir()}


def test_a_logger_of_ones_own_is_told_beside_the_record(
    fit: Callable[..., Path], metrics: Metrics, tmp_path: Path
) -> None:
    run = fit("--trainer.logger", "recorder.Recorder", "--trainer.logger.folder", tmp_path)
    told = [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()]
    (configuration,) = (row["configuration"] for row in told if "configuration" in row)
    assert configuration["model"]["learning_rate"] == 0.25
    rows = {name: row for row in told for name in row}
    assert rows["val/loss"]["step"] == rows["lyapunov/descending"]["step"] == 32
    found = metrics(run)
    assert found["val/loss"] == [pytest.approx(rows["val/loss"]["val/loss"])]
    assert "lyapunov/descending" in found
    assert read_metrics(run)["val/loss"][0][0] == 32
    assert not (run / "logs").exists()


def test_weights_and_biases_offline(tiny_mlp: Path, metrics: Metrics, tmp_path: Path) -> None:
    """In a process that ends as processes do: W&B writes when Python exits."""
    pytest.importorskip("wandb", reason="pip install 'energydiff[wandb]'")
    options = ["--trainer.logger", "WandbLogger", "--trainer.logger.project", "digits"]
    options += ["--config", str(tiny_mlp), "--trainer.default_root_dir", "run"]
    done = subprocess.run(
        [sys.executable, "-m", "energydiff", "fit", *options],
        cwd=tmp_path,
        env=os.environ | {"WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    (written,) = tmp_path.glob("run/wandb/offline-run-*/run-*.wandb")
    content = written.read_bytes()
    assert b"learning_rate" in content and b"lyapunov/descending" in content
    assert "val/loss" in metrics(tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_mlflow_offline(fit: Callable[..., Path], metrics: Metrics) -> None:
    mlflow = pytest.importorskip("mlflow", reason="pip install 'energydiff[mlflow]'")
    before = files_of_the_checkout()
    run = fit("--trainer.logger", "MLFlowLogger", "--trainer.logger.experiment_name", "digits")
    client = mlflow.tracking.MlflowClient(f"sqlite:///{run / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("digits")
    (logged,) = client.search_runs([experiment.experiment_id])
    assert logged.data.params["model/learning_rate"] == "0.25"
    assert logged.data.metrics["val/loss"] == pytest.approx(metrics(run)["val/loss"][0])
    assert files_of_the_checkout() == before
    (grid,) = client.list_artifacts(logged.info.run_id, "samples")
    assert grid.path == "samples/000000032.png"

    again = ["--trainer.logger.run_id", logged.info.run_id, "--model.total_images", 64]
    fit("--trainer.logger", "MLFlowLogger", *again, "--model.weight_decay", 0.5)
    logged = client.get_run(logged.info.run_id)
    assert logged.data.params["model/weight_decay"] == "0.0001"
    changes = {change["setting"]: change for change in json.loads(logged.data.tags["changed"])}
    assert (
        changes["model.weight_decay"]["to"] == 0.5 and changes["model.weight_decay"]["images"] == 32
    )
