"""A saved model comes back as it was."""

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

import energydiff
from energydiff.energies import (
    Denoiser,
    EmpiricalData,
    Energy,
    GaussianMixture,
    Guidance,
    LinearInverse,
    Mixture,
    Negation,
    NoiseRange,
    Sum,
    Temperature,
)
from energydiff.errors import UserError
from energydiff.memory import (
    BinaryHopfield,
    ContinuousHopfield,
    EpanechnikovMemory,
    ExponentialMemory,
    LogSumExpMemory,
    PolynomialMemory,
)
from energydiff.saving import LAST_CHECKPOINT, SavedModel

SHAPE = (1, 4, 4)
PARAMETRIZATIONS = ("inner_product", "sum", "unconstrained", "coercive")
MEMORIES = {
    "log-sum-exp": lambda: LogSumExpMemory(0.3),
    "epanechnikov": lambda: EpanechnikovMemory(0.01, epsilon=0.01),
    "polynomial": lambda: PolynomialMemory(4),
    "exponential": lambda: ExponentialMemory(0.2),
    "hopfield": lambda: BinaryHopfield("pseudo-inverse"),
    "continuous-hopfield": lambda: ContinuousHopfield(2.0, "pseudo-inverse"),
}


class Weighed(Energy):
    """What a user may write: tensors, numbers and models in the constructor, each kept."""

    centre: Tensor

    def __init__(self, centre: Tensor, inner: Energy, scale: float = 1.0) -> None:
        super().__init__()
        self.shape, self.scale, self.inner = tuple(centre.shape), scale, inner
        self.register_buffer("centre", centre)
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        near = (x - self.centre).square().flatten(1).sum(1)
        return self.weight * self.scale * near + self.inner(x, sigma)


def points() -> Energy:
    return EmpiricalData(torch.randn(5, *SHAPE))


EVERY: dict[str, Callable[[Callable[..., Denoiser]], Denoiser]] = {
    f"{b}-{p}": lambda network, b=b, p=p: network(b, p)
    for b in ("mlp", "unet", "transformer")
    for p in PARAMETRIZATIONS
} | {
    "dot": lambda network: network("mlp", "dot"),
    "squared-norm": lambda network: network("mlp", "squared_norm"),
    "convex": lambda network: network("convex", "convex"),
    "natural": lambda network: network("natural", "natural"),
    "natural-conv": lambda network: network("natural-conv", "natural"),
    "mixture": lambda _: GaussianMixture(
        torch.randn(3, *SHAPE), 0.2, torch.tensor([1.0, 2.0, 5.0])
    ),
    "points": lambda _: points(),
    "own": lambda _: Weighed(torch.randn(SHAPE), points(), scale=0.3),
    "sum": lambda network: Sum([network(), points()], torch.tensor([0.7, 0.2])),
    "mixture of sums": lambda network: Mixture([Sum([network()]), points()], [1.0, 2.0]),
    "negation": lambda _: Sum([GaussianMixture(torch.zeros(1, *SHAPE), 1.0), Negation(points())]),
    "temperature": lambda network: Temperature(network("unet", "sum"), 0.7),
    "guidance": lambda network: Guidance(network(), 1.5),
    "memory inside": lambda _: Temperature(LogSumExpMemory(0.3).store(torch.randn(3, *SHAPE)), 2.0),
    "inverse": lambda network: LinearInverse(
        network("unet"), torch.randn(2, *SHAPE), torch.randn(2), sigma_y=0.1, sigma_data=0.5
    ),
}
EVERY |= {
    name: lambda _, m=m: m().store(torch.randn(3, *SHAPE).sign()) for name, m in MEMORIES.items()
}
every_model = pytest.mark.parametrize("name", EVERY)


@pytest.fixture
def model(name: str, save) -> Denoiser:
    return EVERY[name](save.network)


def answers(model: Denoiser) -> list[Tensor]:
    torch.manual_seed(1)
    x, sigma = torch.randn(3, *SHAPE).tanh(), torch.tensor([0.1, 1.0, 5.0])
    if model.eval().energy is None:
        return [model.denoise(x, sigma).detach()]
    return list(model.energy.value_and_grad(x, sigma))


@every_model
def test_an_export_gives_the_same_answers(model, save, tmp_path: Path) -> None:
    again = energydiff.load(save.export(tmp_path, model))
    assert type(again) is type(model)
    for one, other in zip(answers(model), answers(again), strict=True):
        assert torch.equal(one, other)


def test_a_closed_form_needs_no_noise_range(save, tmp_path: Path) -> None:
    energydiff.save_model(SavedModel(points(), save.saved(points()).normalization), tmp_path)
    assert energydiff.load(tmp_path).noise is None


def test_an_energy_may_be_a_member_twice(save, tmp_path: Path) -> None:
    one = points()
    both = Sum([one, one]).eval()
    again = energydiff.load(save.export(tmp_path, both))
    for mine, theirs in zip(answers(both), answers(again), strict=True):
        assert torch.equal(mine, theirs)


def test_a_composition_is_made_for_the_noise_that_its_members_share(save) -> None:
    a, b = save.network(), save.network()
    a.noise, b.noise = NoiseRange(0.02, 10.0), NoiseRange(0.1, 20.0)
    assert Sum([a, b, points()]).noise == NoiseRange(0.1, 10.0)
    assert Guidance(a, 1.0).noise == a.noise and Sum([points()]).noise is None
    b.noise = NoiseRange(10.0, 20.0)
    with pytest.raises(UserError, match="made for no common noise"):
        Sum([a, b])


@every_model
def test_an_export_of_an_export_is_the_same(model, save, tmp_path: Path) -> None:
    one = save.export(tmp_path / "one", model)
    energydiff.save_model(energydiff.open_model(one), tmp_path / "two")
    assert (one / "model.yaml").read_text() == (tmp_path / "two" / "model.yaml").read_text()
    states = [
        safetensors.torch.load_file(tmp_path / n / "model.safetensors") for n in ("one", "two")
    ]
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=0, atol=1e-6)


def test_what_is_saved_beside_the_weights_comes_back(save, tmp_path: Path) -> None:
    model = save.network()
    again = energydiff.open_model(save.export(tmp_path, model))
    assert again == SavedModel(**{**save.saved(model).__dict__, "denoiser": again.denoiser})


@every_model
def test_a_loaded_model_is_ready_to_sample(model, save, tmp_path: Path) -> None:
    """In eval mode and frozen, so that a value carries no graph."""
    model = energydiff.load(save.export(tmp_path, model.train()))
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
    parametrization: str, save, tmp_path: Path
) -> None:
    model = save.network("unet", parametrization)
    file = save.checkpoint(tmp_path / LAST_CHECKPOINT, model)
    for path in (tmp_path, str(tmp_path), file):
        again = energydiff.load(path)
        assert torch.equal(answers(again)[0], answers(model)[0])
        assert not again.training


def test_an_export_replaces_an_earlier_one(save, tmp_path: Path) -> None:
    save.export(tmp_path, save.network("transformer"))
    model = save.network()
    assert torch.equal(answers(energydiff.load(save.export(tmp_path, model)))[0], answers(model)[0])
    assert sorted(f.name for f in tmp_path.iterdir()) == ["model.safetensors", "model.yaml"]


@pytest.mark.parametrize("make", MEMORIES.values(), ids=MEMORIES)
def test_a_loaded_memory_has_its_arguments_and_retrieves(make, save, tmp_path: Path) -> None:
    """The arguments are none of the defaults, so they come back only if they were saved."""
    patterns = torch.randn(3, *SHAPE).sign()
    memory = make().store(patterns)
    again = energydiff.load(save.export(tmp_path, memory))
    assert again.config == memory.config and torch.equal(again.patterns, patterns)
    x = patterns + 0.3 * torch.randn(3, *SHAPE)
    assert torch.equal(again.retrieve(x).samples, memory.retrieve(x).samples)
