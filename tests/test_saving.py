"""A saved model comes back as it was; anything else at that path is refused in a sentence."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml
from torch import Tensor

import energydiff
from energydiff.data import Normalization
from energydiff.denoisers import build_denoiser
from energydiff.energies import Denoiser, EmpiricalData, GaussianMixture
from energydiff.energies.memory import (
    BinaryHopfield,
    ContinuousHopfield,
    EpanechnikovMemory,
    ExponentialMemory,
    LogSumExpMemory,
    PolynomialMemory,
)
from energydiff.errors import UserError
from energydiff.potentials import MLP, InputConvex, Transformer, UNet
from energydiff.saving import CHECKPOINT_KEY, LAST_CHECKPOINT, SavedModel, describe

SHAPE = (1, 4, 4)
BACKBONES = {
    "mlp": lambda: MLP(SHAPE, width=8, depth=1, num_classes=2),
    "unet": lambda: UNet(SHAPE, 4, (1, 2), 1, attention_resolutions=(2,), head_width=4),
    "transformer": lambda: Transformer(SHAPE, width=8, depth=1, heads=2, mlp_ratio=2),
    "convex": lambda: InputConvex(SHAPE, width=8, depth=2),
}
PARAMETRIZATIONS = ("inner_product", "sum", "unconstrained", "coercive")


def network(backbone: str = "mlp", parametrization: str = "inner_product") -> Denoiser:
    """With weights, and a gauge, that are nowhere zero."""
    model = build_denoiser(BACKBONES[backbone](), 0.6, parametrization)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(0.1 * torch.rand_like(value))
    return model


def saved(model: Denoiser) -> SavedModel:
    classes = ("eins", "δύο")[: model.num_classes]
    return SavedModel(model, Normalization(0, 16), 0.03, 7.0, classes, {"a": [1]})


MEMORIES = {
    "log-sum-exp": lambda: LogSumExpMemory(0.3),
    "epanechnikov": lambda: EpanechnikovMemory(0.01, epsilon=0.01),
    "polynomial": lambda: PolynomialMemory(4),
    "exponential": lambda: ExponentialMemory(0.2),
    "hopfield": lambda: BinaryHopfield("pseudo-inverse"),
    "continuous-hopfield": lambda: ContinuousHopfield(2.0, "pseudo-inverse"),
}
EVERY: dict[str, Callable[[], Denoiser]] = {
    f"{b}-{p}": lambda b=b, p=p: network(b, p)
    for b in BACKBONES
    if b != "convex"
    for p in PARAMETRIZATIONS
} | {
    "dot": lambda: network("mlp", "dot"),
    "squared-norm": lambda: network("mlp", "squared_norm"),
    "convex": lambda: network("convex", "convex"),
    "mixture": lambda: GaussianMixture(torch.randn(3, *SHAPE), 0.2, torch.tensor([1.0, 2.0, 5.0])),
    "points": lambda: EmpiricalData(torch.randn(5, *SHAPE)),
}
EVERY |= {
    name: lambda m=m: m().store(torch.randn(3, *SHAPE).sign()) for name, m in MEMORIES.items()
}
every_model = pytest.mark.parametrize("name", EVERY)


def answers(model: Denoiser) -> list[Tensor]:
    torch.manual_seed(1)
    x, sigma = torch.randn(3, *SHAPE).tanh(), torch.tensor([0.1, 1.0, 5.0])
    if model.eval().energy is None:
        return [model.denoise(x, sigma).detach()]
    return list(model.energy.value_and_grad(x, sigma))


def export(folder: Path, model: Denoiser | None = None) -> Path:
    energydiff.save_model(saved(model or network()), folder)
    return folder


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Rewrites an export's model.yaml."""
    description = yaml.safe_load((folder / "model.yaml").read_text())
    change(description)
    (folder / "model.yaml").write_text(yaml.safe_dump(description))
    return folder


def checkpoint(file: Path, model: Denoiser | None = None) -> Path:
    """What Lightning writes of a run, reduced to what a reader needs."""
    model = model or network()
    state = {f"denoiser.{name}": value for name, value in model.state_dict().items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": state, CHECKPOINT_KEY: describe(saved(model))}, file)
    return file


@every_model
def test_an_export_gives_the_same_answers(name: str, tmp_path: Path) -> None:
    model = EVERY[name]()
    again = energydiff.load(export(tmp_path, model))
    assert type(again) is type(model)
    for one, other in zip(answers(model), answers(again), strict=True):
        assert torch.equal(one, other)


@every_model
def test_an_export_of_an_export_is_the_same(name: str, tmp_path: Path) -> None:
    one = export(tmp_path / "one", EVERY[name]())
    energydiff.save_model(energydiff.open_model(one), tmp_path / "two")
    assert (one / "model.yaml").read_text() == (tmp_path / "two" / "model.yaml").read_text()
    states = [
        safetensors.torch.load_file(tmp_path / n / "model.safetensors") for n in ("one", "two")
    ]
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=0, atol=1e-6)


def test_what_is_saved_beside_the_weights_comes_back(tmp_path: Path) -> None:
    model = network()
    again = energydiff.open_model(export(tmp_path, model))
    assert again == SavedModel(**{**saved(model).__dict__, "denoiser": again.denoiser})


@every_model
def test_a_loaded_model_is_ready_to_sample(name: str, tmp_path: Path) -> None:
    """In eval mode and frozen, so that a value carries no graph."""
    model = energydiff.load(export(tmp_path, EVERY[name]().train()))
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    x = torch.randn(2, *SHAPE)
    if model.energy is None:
        values = [model.denoise(x, 1.0)]
    else:
        values = [*model.energy.value_and_grad(x, 1.0), model.energy.free_energy(x, 1.0)]
    assert not any(value.requires_grad for value in values)


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
def test_a_checkpoint_and_its_run_folder_are_the_model(
    parametrization: str, tmp_path: Path
) -> None:
    model = network("unet", parametrization)
    file = checkpoint(tmp_path / LAST_CHECKPOINT, model)
    for path in (tmp_path, str(tmp_path), file):
        again = energydiff.load(path)
        assert torch.equal(answers(again)[0], answers(model)[0])
        assert not again.training


def test_an_export_replaces_an_earlier_one(tmp_path: Path) -> None:
    export(tmp_path, network("transformer"))
    model = network()
    assert torch.equal(answers(energydiff.load(export(tmp_path, model)))[0], answers(model)[0])
    assert sorted(f.name for f in tmp_path.iterdir()) == ["model.safetensors", "model.yaml"]


def test_a_model_of_ones_own_cannot_be_exported(tmp_path: Path) -> None:
    class Foreign(Denoiser):
        shape = SHAPE

        def denoise(self, x, sigma, label=None):
            return x

    with pytest.raises(UserError, match="Foreign cannot be exported"):
        export(tmp_path, Foreign())


@pytest.mark.parametrize("make", MEMORIES.values(), ids=MEMORIES)
def test_a_loaded_memory_has_its_arguments_and_retrieves(make, tmp_path: Path) -> None:
    """The arguments are none of the defaults, so they come back only if they were saved."""
    patterns = torch.randn(3, *SHAPE).sign()
    memory = make().store(patterns)
    again = energydiff.load(export(tmp_path, memory))
    assert again.config == memory.config and torch.equal(again.patterns, patterns)
    x = patterns + 0.3 * torch.randn(3, *SHAPE)
    assert torch.equal(again.retrieve(x).samples, memory.retrieve(x).samples)


def test_an_empty_memory_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"LogSumExpMemory is empty: call store"):
        export(tmp_path, LogSumExpMemory())


# Refusals. Each case leaves something at a path and names what the sentence must say.


def missing(path: Path) -> Path:
    return path / "nowhere"


def empty_folder(path: Path) -> Path:
    return path


def random_file(path: Path) -> Path:
    file = path / "model.ckpt"
    file.write_bytes(bytes(range(256)) * 8)
    return file


def empty_file(path: Path) -> Path:
    file = path / "model.ckpt"
    file.touch()
    return file


def truncated_checkpoint(path: Path) -> Path:
    file = checkpoint(path / "last.ckpt")
    file.write_bytes(file.read_bytes()[:-200])
    return file


def foreign_checkpoint(path: Path) -> Path:
    torch.save({"state_dict": {}}, path / "other.ckpt")
    return path / "other.ckpt"


def checkpoint_without_weights(path: Path) -> Path:
    torch.save({CHECKPOINT_KEY: describe(saved(network()))}, path / "other.ckpt")
    return path / "other.ckpt"


def checkpoint_of_a_list(path: Path) -> Path:
    torch.save([torch.zeros(1)], path / "other.ckpt")
    return path / "other.ckpt"


def broken_yaml(path: Path) -> Path:
    (export(path) / "model.yaml").write_text("model: [unclosed\n")
    return path


def binary_yaml(path: Path) -> Path:
    (export(path) / "model.yaml").write_bytes(b"\xff\xfe\x00\x81")
    return path


def empty_yaml(path: Path) -> Path:
    (export(path) / "model.yaml").write_text("")
    return path


def wrong_format(path: Path) -> Path:
    return edit(export(path), lambda d: d.update(format="energydiff-model-0"))


def foreign_class(path: Path) -> Path:
    return edit(export(path), lambda d: d["model"].update({"class": "os.system"}))


def unknown_backbone(path: Path) -> Path:
    return edit(export(path), lambda d: d["model"]["backbone"].update({"class": "Linear"}))


def nested_backbone(path: Path) -> Path:
    return edit(export(path), lambda d: d["model"]["backbone"].update({"class": ["MLP"]}))


def unknown_argument(path: Path) -> Path:
    return edit(export(path), lambda d: d["model"]["backbone"].update(colour="red"))


def negative_width(path: Path) -> Path:
    return edit(export(path), lambda d: d["model"]["backbone"].update(width=-1))


def no_levels(path: Path) -> Path:
    folder = export(path, network("unet"))
    return edit(folder, lambda d: d["model"]["backbone"].update(multipliers=[]))


def model_of_text(path: Path) -> Path:
    return edit(export(path), lambda d: d.update(model="EnergyDenoiser"))


def no_model(path: Path) -> Path:
    return edit(export(path), lambda d: d.pop("model") and None)


def unknown_parametrization(path: Path) -> Path:
    return edit(export(path), lambda d: d["model"].update(parametrization="square"))


def other_width(path: Path) -> Path:
    return edit(export(path), lambda d: d["model"]["backbone"].update(width=16))


def more_blocks(path: Path) -> Path:
    return edit(export(path), lambda d: d["model"]["backbone"].update(depth=2))


def no_weights(path: Path) -> Path:
    (export(path) / "model.safetensors").unlink()
    return path


def corrupt_weights(path: Path) -> Path:
    (export(path) / "model.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{corrupt")
    return path


def truncated_weights(path: Path) -> Path:
    file = export(path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    return path


def points_without_data(path: Path) -> Path:
    export(path, EmpiricalData(torch.randn(2, 3)))
    safetensors.torch.save_file({"points": torch.zeros(2, 3)}, path / "model.safetensors")
    return path


def classes_of(value: object) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        return edit(export(path), lambda d: d.update(classes=value))

    return make


def baseline_as_an_energy(path: Path) -> Path:
    return edit(export(path, network("mlp", "unconstrained")), to_class("EnergyDenoiser"))


def energy_as_a_baseline(path: Path) -> Path:
    return edit(export(path), to_class("UnconstrainedDenoiser"))


def to_class(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda d: d["model"].update({"class": name})


def memory(path: Path) -> Path:
    return export(path, EVERY["hopfield"]())


def memory_without_patterns(path: Path) -> Path:
    safetensors.torch.save_file({"weights": torch.eye(16)}, memory(path) / "model.safetensors")
    return path


def memory_of_more(path: Path) -> Path:
    state = safetensors.torch.load_file(memory(path) / "model.safetensors")
    state["weights"] = torch.eye(16)
    safetensors.torch.save_file(state, path / "model.safetensors")
    return path


def unknown_rule(path: Path) -> Path:
    return edit(memory(path), lambda d: d["model"].update(rule="delta"))


def unknown_memory_argument(path: Path) -> Path:
    return edit(memory(path), lambda d: d["model"].update(beta=2))


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
    (foreign_class, "names the model 'os.system'"),
    (unknown_backbone, "names the backbone 'Linear'.*it has MLP, UNet, Transformer"),
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
    (baseline_as_an_energy, "EnergyDenoiser, but its parametrization makes Unconstrained"),
    (energy_as_a_baseline, "UnconstrainedDenoiser, but its parametrization makes Energy"),
    (memory_without_patterns, "does not describe a model.*patterns"),
    (memory_of_more, "do not fit"),
    (unknown_rule, "rule must be hebb or pseudo-inverse"),
    (unknown_memory_argument, "does not describe a model.*beta"),
]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(("make", "message"), REFUSED, ids=lambda v: getattr(v, "__name__", ""))
def test_what_is_no_model_is_refused_in_a_sentence(make, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        energydiff.load(make(tmp_path))
    assert "\n" not in str(refusal.value)


# Files that would run something. None may: the mark they leave is looked for.


class Payload:
    """Pickles as a call that makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.mkdir, (self.mark,)


def test_the_payload_is_live(tmp_path: Path) -> None:
    """Otherwise the next tests could not fail."""
    pickle.loads(pickle.dumps(Payload(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("place", ["beside", "description", "weights", "plain pickle"])
def test_a_checkpoint_runs_no_code(place: str, tmp_path: Path) -> None:
    mark, file = tmp_path / "mark", tmp_path / "last.ckpt"
    content = torch.load(checkpoint(file), weights_only=True)
    if place == "beside":
        content["callbacks"] = Payload(mark)
    elif place == "description":
        content[CHECKPOINT_KEY]["config"] = Payload(mark)
    else:
        content["state_dict"]["denoiser.x"] = Payload(mark)
    if place == "plain pickle":
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file)
    with pytest.raises(UserError, match="plain tensors only"):
        energydiff.load(file)
    assert not mark.exists()


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.mkdir ['{mark}']",
        "!!python/object/new:pathlib.Path.mkdir ['{mark}']",
        "!!python/name:os.mkdir",
    ],
)
def test_an_export_runs_no_code(tag: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    file = export(tmp_path / "export") / "model.yaml"
    file.write_text(file.read_text() + f"\nextra: {tag.format(mark=mark)}\n")
    with pytest.raises(UserError, match="not plain YAML"):
        energydiff.load(file.parent)
    assert not mark.exists()
