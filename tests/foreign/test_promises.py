"""What is brought from outside the package goes through every door: the promises of docs/extend.md.

Each command is a process of its own, in a folder where only its own files are, as a stranger's is.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import energydiff
from energydiff.saving import LAST_CHECKPOINT

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
FEW = ("--steps", "2", "--accelerator", "cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stranger's folder."""
    folder = tmp_path_factory.mktemp("stranger")
    for name in ("mine.py", "config.yaml"):
        shutil.copy(HERE / name, folder)
    return folder


@pytest.fixture(scope="module")
def command(python: Callable[..., Any], folder: Path) -> Callable[..., Any]:
    """The installed command in that folder, with one run in it."""

    def run(*arguments: object) -> Any:
        return python("energydiff", *arguments, folder=folder)

    done = run("fit", "--config", "config.yaml", "--trainer.default_root_dir", "run")
    assert done.code == 0, done.err
    return run


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / LAST_CHECKPOINT, weights_only=True)["state_dict"]


def test_a_run_is_named_by_import_paths_and_resumes(command, folder: Path) -> None:
    described = (folder / "run/export/model.yaml").read_text()
    assert "mine.Field" in described and "width: 12" in described
    run = ["fit", "--config", "config.yaml", "--trainer.default_root_dir", "again"]
    for total in (64, 128):
        done = command(*run, "--model.total_images", total)
        assert done.code == 0, done.err
    done = command(*run, "--model.total_images", 128)
    assert done.code == 0 and "has all of its 128 images" in done.out


def test_two_ranks_train_what_one_does(command, python, folder: Path) -> None:
    two = ["--trainer.devices", 2, "--trainer.strategy", "ddp", "--trainer.default_root_dir", "two"]
    script = folder / "two.py"  # ranks are started as the process itself was
    script.write_text("import sys; from energydiff.cli import main; sys.exit(main())\n")
    arguments = ["fit", "--config", "config.yaml", *two]
    done = python("two.py", *arguments, folder=folder, PYTHONPATH=str(ROOT))
    assert done.code == 0, done.err
    one, other = weights(folder / "run"), weights(folder / "two")
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-4)


def test_a_sampler_of_ones_own_samples_a_network_of_ones_own(command, folder: Path) -> None:
    mine = ["--sampler", "mine.Half", "--import", "mine", "--num_samples", 4, "--out", "out"]
    done = command("sample", "run", *mine, *FEW)
    assert done.code == 0, done.err
    settings = json.loads((folder / "out/certificate.json").read_text())["settings"]
    assert settings["sampler"] == "mine.Half"


def test_without_its_module_a_model_says_what_to_import(command, folder: Path) -> None:
    done = command("sample", "run", "--out", "nowhere", *FEW)
    assert done.code == 2 and "--import mine" in done.err
    assert "Traceback" not in done.err and not (folder / "nowhere").exists()


def test_an_extractor_of_ones_own_measures_samples_against_data_of_ones_own(
    command, folder: Path
) -> None:
    (folder / "data.yaml").write_text(
        "source:\n  class_path: TorchDataset\n  init_args:\n"
        "    dataset: {class_path: mine.Stripes}\n"
        "extractor: mine.Pixels\nsmall_reference: true\n"
    )
    mine = ["--import", "mine", "--data", "data.yaml", "-n", 40, "--blocks", 2]
    done = command("evaluate", "fid", "run", *mine, *FEW)
    assert done.code == 0, done.err
    assert "pixels" in done.out
    done = command("evaluate", "report", "run", *mine[:2], *FEW)
    assert done.code == 0, done.err
    assert "mine.Field" in (folder / "report.html").read_text()


def test_an_export_of_a_run_loads_again(
    command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = command("export", "run", "--import", "mine", "--out", "model")
    assert done.code == 0, done.err
    monkeypatch.syspath_prepend(str(folder))
    import mine

    model = energydiff.load(folder / "model")
    assert type(model.potential.backbone) is mine.Field
    assert tuple(model.noise) == (0.1, 5.0)


def test_an_energy_of_ones_own_is_exported_and_sampled(
    command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(folder))
    import mine

    from energydiff.data import Normalization
    from energydiff.energies import NoiseRange
    from energydiff.saving import SavedModel, save_model

    bowl = mine.Bowl((1, 4, 4), depth=2.0)
    bowl.noise = NoiseRange(0.1, 5.0)
    save_model(SavedModel(bowl, Normalization(0, 255)), folder / "bowl")
    done = command("sample", "bowl", "--import", "mine.py", "--out", "bowls", *FEW)
    assert done.code == 0, done.err
    assert (folder / "bowls/certificate.json").exists()
