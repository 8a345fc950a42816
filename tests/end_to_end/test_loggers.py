"""Whatever logger is chosen, the run folder keeps its record, and the logger is told everything."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from energydiff.report.page.run import read_metrics

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
    assert found.keys() >= {"lyapunov/descending", "lr"}
    assert read_metrics(run)["val/loss"][0][0] == 32
    assert not (run / "logs").exists()


def test_weights_and_biases_offline(
    fit: Callable[..., Path], metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="pip install wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    before = files_of_the_checkout()
    run = fit("--trainer.logger", "WandbLogger", "--trainer.logger.project", "digits")
    (written,) = run.glob("wandb/offline-run-*/run-*.wandb")
    content = written.read_bytes()
    assert b"learning_rate" in content and b"lyapunov/descending" in content
    assert "val/loss" in metrics(run)
    assert files_of_the_checkout() == before


def test_mlflow_offline(fit: Callable[..., Path], metrics: Metrics) -> None:
    mlflow = pytest.importorskip("mlflow", reason="pip install mlflow")
    before = files_of_the_checkout()
    run = fit("--trainer.logger", "MLFlowLogger", "--trainer.logger.experiment_name", "digits")
    client = mlflow.tracking.MlflowClient(f"sqlite:///{run / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("digits")
    (logged,) = client.search_runs([experiment.experiment_id])
    assert logged.data.params["model/learning_rate"] == "0.25"
    assert logged.data.metrics["val/loss"] == pytest.approx(metrics(run)["val/loss"][0])
    assert files_of_the_checkout() == before
