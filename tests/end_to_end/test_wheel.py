"""The wheel, installed where nothing of the checkout is, does everything from another folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FEW = [
    *("--model.total_images=128", "--val_every_images=128", "--monitor.every_images=128"),
    *("--monitor.samples=4", "--monitor.steps=2", "--monitor.calibration_evaluations=64"),
    *("--finish.evaluations=64", "--trainer.accelerator=cpu"),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what git tracks, so that the checkout stays clean."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("energydiff", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", out, source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(f.relative_to(ROOT)) for f in (ROOT / "energydiff").rglob("*.py")}
    ready = [f for f in (ROOT / "configs").rglob("*.*") if f.suffix in (".yaml", ".sh")]
    configs = {f"energydiff/{f.relative_to(ROOT)}" for f in ready}
    report = (ROOT / "energydiff/report").rglob("*.*")
    page = {str(f.relative_to(ROOT)) for f in report if f.suffix in (".css", ".js", ".jinja")}
    assert modules | configs | page | {"energydiff/py.typed"} == {
        name for name in names if not name.startswith("energydiff-")
    }


@pytest.mark.slow  # CI runs it by itself
def test_the_installed_command_trains_samples_and_measures_elsewhere(
    wheel: Path, tmp_path: Path
) -> None:
    """In an environment of its own, which borrows the dependencies but not the checkout."""
    environment, elsewhere = tmp_path / "environment", tmp_path / "elsewhere"
    elsewhere.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    site = next(environment.glob("lib/python*/site-packages"))
    install = [sys.executable, "-m", "pip", "--python", environment / "bin/python", "install"]
    subprocess.run([*install, "--quiet", "--no-deps", "--no-index", wheel], check=True)
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables |= {"OMP_NUM_THREADS": "1", "ENERGYDIFF_CACHE": str(tmp_path / "cache")}

    def energydiff(*arguments: object) -> str:
        command = [environment / "bin/energydiff", *map(str, arguments)]
        done = subprocess.run(
            command, cwd=elsewhere, env=variables, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = [environment / "bin/python", "-c", "import energydiff; print(energydiff.__file__)"]
    found = subprocess.run(where, cwd=elsewhere, env=variables, capture_output=True, text=True)
    assert found.stdout.strip() == str(site / "energydiff/__init__.py")
    # A configuration of the package: there is no folder configs here.
    run = ["--trainer.default_root_dir", elsewhere / "run"]
    energydiff("fit", "--config", "configs/digits/energy_mlp.yaml", *run, *FEW)
    energydiff("sample", "run", "--num_samples", 4, "--steps", 2, "--accelerator", "cpu")
    assert len(list((elsewhere / "out/images").glob("*.png"))) == 4
    few = ["-n", 40, "--blocks", 2, "--steps", 2, "--sampler", "euler", "--accelerator", "cpu"]
    assert "Fréchet distance" in energydiff("evaluate", "fid", "run", *few)
