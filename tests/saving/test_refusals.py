"""What is no model, or no model to save, is refused in a sentence."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch

import energydiff
from energydiff.energies import Denoiser, EmpiricalData
from energydiff.errors import UserError
from energydiff.memory import BinaryHopfield, LogSumExpMemory
from energydiff.saving import CHECKPOINT_KEY, describe

SHAPE = (1, 4, 4)


def test_a_class_that_no_import_finds_cannot_be_exported(save, tmp_path: Path) -> None:
    class Foreign(Denoiser):
        shape = SHAPE

        def denoise(self, x, sigma, label=None):
            return x

    with pytest.raises(UserError, match=r"Foreign of .* could not be found again by an import"):
        save.export(tmp_path, Foreign())
    assert not list(tmp_path.iterdir())


def test_an_empty_memory_cannot_be_exported(save, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"LogSumExpMemory is empty: call store"):
        save.export(tmp_path, LogSumExpMemory())


# Each case leaves something at a path and names what the sentence must say.


def missing(path: Path, save: SimpleNamespace) -> Path:
    return path / "nowhere"


def empty_folder(path: Path, save: SimpleNamespace) -> Path:
    return path


def random_file(path: Path, save: SimpleNamespace) -> Path:
    file = path / "model.ckpt"
    file.write_bytes(bytes(range(256)) * 8)
    return file


def empty_file(path: Path, save: SimpleNamespace) -> Path:
    file = path / "model.ckpt"
    file.touch()
    return file


def truncated_checkpoint(path: Path, save: SimpleNamespace) -> Path:
    file = save.checkpoint(path / "last.ckpt")
    file.write_bytes(file.read_bytes()[:-200])
    return file


def foreign_checkpoint(path: Path, save: SimpleNamespace) -> Path:
    torch.save({"state_dict": {}}, path / "other.ckpt")
    return path / "other.ckpt"


def checkpoint_without_weights(path: Path, save: SimpleNamespace) -> Path:
    torch.save({CHECKPOINT_KEY: describe(save.saved(save.network()))}, path / "other.ckpt")
    return path / "other.ckpt"


def checkpoint_of_a_list(path: Path, save: SimpleNamespace) -> Path:
    torch.save([torch.zeros(1)], path / "other.ckpt")
    return path / "other.ckpt"


def broken_yaml(path: Path, save: SimpleNamespace) -> Path:
    (save.export(path) / "model.yaml").write_text("model: [unclosed\n")
    return path


def binary_yaml(path: Path, save: SimpleNamespace) -> Path:
    (save.export(path) / "model.yaml").write_bytes(b"\xff\xfe\x00\x81")
    return path


def empty_yaml(path: Path, save: SimpleNamespace) -> Path:
    (save.export(path) / "model.yaml").write_text("")
    return path


def wrong_format(path: Path, save: SimpleNamespace) -> Path:
    return save.edit(save.export(path), lambda d: d.update(format="energydiff-model-0"))


def foreign_class(path: Path, save: SimpleNamespace) -> Path:
    return save.edit(save.export(path), lambda d: d["model"].update({"class": "os.system"}))


def unknown_backbone(path: Path, save: SimpleNamespace) -> Path:
    return save.edit(
        save.export(path), lambda d: d["model"]["backbone"].update({"class": "Linear"})
    )


def nested_backbone(path: Path, save: SimpleNamespace) -> Path:
    return save.edit(save.export(path), lambda d: d["model"]["backbone"].update({"class": ["MLP"]}))


def unknown_argument(path: Path, save: SimpleNamespace) -> Path:
    return save.edit(save.export(path), lambda d: d["model"]["backbone"].update(colour="red"))


def negative_width(path: Path, save: SimpleNamespace) -> Path:
    return save.edit(save.export(path), lambda d: d["model"]["backbone"].update(width=-1))


def no_levels(path: Path, save: SimpleNamespace) -> Path:
    folder = save.export(path, save.network("unet"))
    return save.edit(folder, lambda d: d["model"]["backbone"].update(multipliers=[]))


def model_of_text(path: Path, save: SimpleNamespace) -> Path:
    return save.edit(save.export(path), lambda d: d.update(model="EnergyDenoiser"))


def no_model(path: Path, save: SimpleNamespace) -> Path:
    return save.edit(save.export(path), lambda d: d.pop("model") and None)


def unknown_parametrization(path: Path, save: SimpleNamespace) -> Path:
    return save.edit(save.export(path), lambda d: d["model"].update(parametrization="square"))


def other_width(path: Path, save: SimpleNamespace) -> Path:
    return save.edit(save.export(path), lambda d: d["model"]["backbone"].update(width=16))


def more_blocks(path: Path, save: SimpleNamespace) -> Path:
    return save.edit(save.export(path), lambda d: d["model"]["backbone"].update(depth=2))


def no_weights(path: Path, save: SimpleNamespace) -> Path:
    (save.export(path) / "model.safetensors").unlink()
    return path


def corrupt_weights(path: Path, save: SimpleNamespace) -> Path:
    (save.export(path) / "model.safetensors").write_bytes(
        b"\x08\x00\x00\x00\x00\x00\x00\x00{corrupt"
    )
    return path


def truncated_weights(path: Path, save: SimpleNamespace) -> Path:
    file = save.export(path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    return path


def points_without_data(path: Path, save: SimpleNamespace) -> Path:
    save.export(path, EmpiricalData(torch.randn(2, 3)))
    safetensors.torch.save_file({"points": torch.zeros(2, 3)}, path / "model.safetensors")
    return path


def classes_of(value: object) -> Callable[[Path], Path]:
    def make(path: Path, save: SimpleNamespace) -> Path:
        return save.edit(save.export(path), lambda d: d.update(classes=value))

    return make


def baseline_as_an_energy(path: Path, save: SimpleNamespace) -> Path:
    return save.edit(
        save.export(path, save.network("mlp", "unconstrained")), to_class("EnergyDenoiser")
    )


def energy_as_a_baseline(path: Path, save: SimpleNamespace) -> Path:
    return save.edit(save.export(path), to_class("UnconstrainedDenoiser"))


def to_class(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda d: d["model"].update({"class": name})


def memory(path: Path, save: SimpleNamespace) -> Path:
    return save.export(path, BinaryHopfield("pseudo-inverse").store(torch.randn(3, *SHAPE).sign()))


def memory_without_patterns(path: Path, save: SimpleNamespace) -> Path:
    safetensors.torch.save_file(
        {"weights": torch.eye(16)}, memory(path, save) / "model.safetensors"
    )
    return path


def memory_of_more(path: Path, save: SimpleNamespace) -> Path:
    state = safetensors.torch.load_file(memory(path, save) / "model.safetensors")
    state["weights"] = torch.eye(16)
    safetensors.torch.save_file(state, path / "model.safetensors")
    return path


def unknown_rule(path: Path, save: SimpleNamespace) -> Path:
    return save.edit(memory(path, save), lambda d: d["model"].update(rule="delta"))


def unknown_memory_argument(path: Path, save: SimpleNamespace) -> Path:
    return save.edit(memory(path, save), lambda d: d["model"].update(beta=2))


REFUSED = [
    (missing, "does not exist"),
    (empty_folder, "holds no model"),
    (random_file, "cannot be read as a checkpoint"),
    (empty_file, "cannot be read as a checkpoint"),
    (truncated_checkpoint, "cannot be read as a checkpoint"),
    (foreign_checkpoint, "is not a checkpoint of this package"),
    (checkpoint_without_weights, "is not a checkpoint of this package"),
    (checkpoint_of_a_list, "is not a checkpoint of this package"),
    (broken_yaml, "not plain YAML"),
    (binary_yaml, "not plain YAML"),
    (empty_yaml, "its format should be"),
    (wrong_format, "its format should be"),
    (foreign_class, r"the model in .* is os.system, which is no Denoiser"),
    (
        unknown_backbone,
        "is 'Linear', which this package does not have: choose .*MLP.*Transformer, UNet",
    ),
    (nested_backbone, "does not describe a model"),
    (unknown_argument, "does not describe a model.*colour"),
    (negative_width, "does not describe a model"),
    (no_levels, "does not describe a model"),
    (model_of_text, "does not describe a model"),
    (no_model, "does not describe a model"),
    (unknown_parametrization, "parametrization is 'square'"),
    (other_width, "do not fit"),
    (more_blocks, "do not fit.*missing"),
    (no_weights, "model.safetensors is missing"),
    (corrupt_weights, "model.safetensors cannot be read"),
    (truncated_weights, "model.safetensors cannot be read"),
    (points_without_data, "does not describe a model"),
    (classes_of(["one"]), "they must be a list of 2 names"),
    (classes_of(["one", "two", "three"]), "they must be a list of 2 names"),
    (classes_of("ab"), "they must be a list of 2 names"),
    (classes_of([1, 2]), "they must be a list of 2 names"),
    (classes_of(None), "they must be a list of 2 names"),
    (baseline_as_an_energy, "EnergyDenoiser.*parametrization.*unconstrained"),
    (energy_as_a_baseline, "UnconstrainedDenoiser, but its parametrization.*makes an energy"),
    (memory_without_patterns, "does not describe a model.*patterns"),
    (memory_of_more, "do not fit"),
    (unknown_rule, "rule must be hebb or pseudo-inverse"),
    (unknown_memory_argument, "does not describe a model.*beta"),
]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(("make", "message"), REFUSED, ids=lambda v: getattr(v, "__name__", ""))
def test_what_is_no_model_is_refused_in_a_sentence(
    make, message: str, save, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        energydiff.load(make(tmp_path, save))
    assert "\n" not in str(refusal.value)
