"""The front doors as a user meets them: in a process of their own, or, faster, in this one."""

import csv
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock

import energydiff
from energydiff.cli import main
from energydiff.data import Normalization
from energydiff.denoisers import EnergyDenoiser, build_denoiser
from energydiff.energies import Denoiser, NoiseRange
from energydiff.potentials import MLP
from energydiff.saving import SavedModel

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
SHAPE = (1, 4, 4)

Door = Callable[..., Any]


@pytest.fixture(scope="session")
def process(python: Door) -> Door:
    """Runs the command in a process of its own, where the callbacks of this folder are to be had
    by name."""

    def run(*arguments: object, **options: Any) -> Any:
        command = ["-m", "energydiff", *arguments]
        return python(*command, folder=ROOT, PYTHONPATH=str(HERE), **options)

    return run


@pytest.fixture
def door(
    finished: type[Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Door:
    """Runs the command in this process; what it raises comes through."""

    def run(*arguments: object) -> Any:
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", ["energydiff", *map(str, arguments)])
        # Lightning's log still points at the standard error of the test that imported it.
        monkeypatch.setattr(logging, "raiseExceptions", False)
        capfd.readouterr()
        code: object = 0
        try:
            code = main()
        except SystemExit as end:
            code = end.code or 0
        assert isinstance(code, int)
        return finished(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def tiny_unet() -> Path:
    return HERE / "tiny_unet.yaml"


@pytest.fixture(scope="session")
def tiny_mlp() -> Path:
    return HERE / "tiny_mlp.yaml"


@pytest.fixture(scope="session")
def unet_run(process: Door, tiny_unet: Path, shared: Path) -> Path:
    """The run folder of ``tiny_unet.yaml``, trained without interruption, once for all workers:
    to be read only."""
    run = shared / "unet"
    with FileLock(run.with_suffix(".lock")):
        if not (run / "export").exists():
            done = process("fit", "--config", tiny_unet, "--trainer.default_root_dir", run)
            assert done.code == 0, done.err
    return run


@pytest.fixture(scope="session")
def metrics() -> Callable[[Path], dict[str, list[float]]]:
    """Reads all that a run's CSV logger wrote, in order, by name."""

    def read(run: Path) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for file in sorted(run.glob("metrics/version_*/metrics.csv")):
            with file.open() as rows:
                for row in csv.DictReader(rows):
                    for name, value in row.items():
                        if value:
                            found.setdefault(name, []).append(float(value))
        return found

    return read


Export = Callable[..., Path]


@pytest.fixture
def export(tmp_path: Path) -> Export:
    """Exports a model, by default an untrained energy of 4×4 images, for ``energydiff sample``."""

    def save(model: Denoiser | None = None, folder: str = "model", classes: int = 0) -> Path:
        if model is None:
            model = perturbed("inner_product", classes)
        names = tuple(str(label) for label in range(model.num_classes))
        model.noise = NoiseRange(0.02, 10.0)
        saved = SavedModel(model, Normalization(0, 16), names)
        energydiff.save_model(saved, tmp_path / folder)
        return tmp_path / folder

    return save


def perturbed(parametrization: str, classes: int = 0) -> Denoiser:
    torch.manual_seed(0)
    backbone = MLP(SHAPE, width=16, depth=1, num_classes=classes)
    model = build_denoiser(backbone, 0.6, parametrization)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture
def baseline() -> Denoiser:
    return perturbed("unconstrained")


@pytest.fixture
def bad_gauge() -> EnergyDenoiser:
    """Its energy falls with σ so fast that V rises as the noise falls."""
    model = perturbed("inner_product")
    assert isinstance(model, EnergyDenoiser)
    nodes = len(model.gauge.offset)
    log_sigma = torch.linspace(np.log(0.02), np.log(10.0), nodes)
    model.gauge.set(log_sigma, 200 * (log_sigma[-1] - log_sigma))
    return model
