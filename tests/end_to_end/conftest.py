"""The front doors as a user meets them: in a process of their own, or, faster, in this one."""

import csv
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

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


@dataclass(frozen=True)
class Finished:
    """How a front door ended."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """What it printed for a mistake of the user; empty unless that is one clean line."""
        errors = [line for line in self.err.splitlines() if line.startswith("error: ")]
        clean = len(errors) == 1 and "Traceback" not in self.out + self.err
        return errors[0] if clean and self.code == 2 else ""


Door = Callable[..., Finished]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """For processes: one thread each, the callbacks of this folder to be had by name, and a cache
    of their own."""
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(HERE),
        "ENERGYDIFF_CACHE": str(tmp_path_factory.mktemp("cache")),
    }


@pytest.fixture(scope="session")
def process(environment: dict[str, str]) -> Door:
    """Runs the command in a process of its own."""

    def run(*arguments: object, timeout: float = 120) -> Finished:
        command = [sys.executable, "-m", "energydiff", *map(str, arguments)]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Door:
    """Runs the command in this process; what it raises comes through."""

    def run(*arguments: object) -> Finished:
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
        return Finished(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def tiny_unet() -> Path:
    return HERE / "tiny_unet.yaml"


@pytest.fixture(scope="session")
def tiny_mlp() -> Path:
    return HERE / "tiny_mlp.yaml"


@pytest.fixture(scope="session")
def unet_run(process: Door, tiny_unet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of ``tiny_unet.yaml``, trained without interruption."""
    run = tmp_path_factory.mktemp("runs") / "unet"
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
