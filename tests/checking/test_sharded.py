"""A model is asked as training shares out its weights, and what is wrong there alone is found."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from energydiff.checking import Checked, check
from energydiff.checking.sharded import require_shareable
from energydiff.data import Normalization
from energydiff.denoisers import build_denoiser
from energydiff.energies import GaussianMixture
from energydiff.errors import UserError
from energydiff.potentials import (
    MLP,
    EnergyTransformer,
    Network,
    PublishedEnergyTransformer,
    Wrapped,
)
from energydiff.potentials.check import move_weights
from energydiff.saving import SavedModel

CPU = torch.device("cpu")
WAYS = ("sharded, sampling", "sharded, training")


def energy_of(network: Network, parametrization: str = "inner_product") -> Any:
    model = build_denoiser(network, 0.6, parametrization)
    move_weights(model)
    return model.eval().requires_grad_(False)


def checked(energy: Any) -> dict[str, Checked]:
    return {w.way: w for w in check(SavedModel(energy, Normalization(0, 1)), compiled=False)}


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of that name, as the other processes find it."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    return importlib.import_module("faulty")


@pytest.mark.parametrize(
    ("network", "parametrization"),
    [
        (lambda: MLP((3,), width=7, depth=1, num_classes=2), "inner_product"),
        (lambda: EnergyTransformer((1, 4, 4), width=8, heads=2), "scalar"),
    ],
    ids=["one part", "parts"],
)
def test_shared_out_a_network_answers_as_in_float64(network: Any, parametrization: str) -> None:
    found = checked(energy_of(network(), parametrization))
    assert all(way.holds for way in found.values())
    sampling, training = ([f.what for f in found[name].findings] for name in WAYS)
    assert sampling == ["∇E with E", "∇E alone", "∇E with ∂E/∂σ", "∂E/∂log σ"]
    assert training == [*sampling, "training gradient"]
    assert all(0 < f.error < 1e-5 for name in WAYS for f in found[name].findings)


def test_a_weight_that_sharing_out_does_not_know_of_is_found(faulty: Any) -> None:
    """Its field is right: its gradient goes where no optimizer looks, in several processes only."""
    found = checked(energy_of(faulty.Hoarding((3,))))
    wrong = {name: way for name, way in found.items() if not way.holds}
    assert [*wrong] == ["sharded, training"]
    assert [f.what for f in wrong["sharded, training"].findings if not f.holds] == [
        "training gradient"
    ]


def test_a_part_that_is_used_while_it_is_cut_is_found(faulty: Any) -> None:
    found = checked(energy_of(faulty.Straying((3,)), "scalar"))
    assert {name for name, way in found.items() if not way.holds} == {*WAYS}
    for name in WAYS:
        assert found[name].failed and "torch.Tensor and DTensor" in found[name].why


class Hidden(nn.Linear):
    """Holds what no other process can be handed."""

    def __init__(self) -> None:
        super().__init__(3, 3)
        self.function = lambda u: u

    def forward(self, u: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return super().forward(self.function(u))


def local_class() -> type[nn.Module]:
    class Local(Hidden): ...

    return Local


@pytest.mark.parametrize(
    ("energy", "why"),
    [
        (lambda: GaussianMixture(torch.zeros(1, 2), 0.2), "no weights to share out"),
        (
            lambda: energy_of(
                PublishedEnergyTransformer((1, 4, 4), width=8, depth=1, heads=2), "scalar"
            ),
            "log_gamma is a single number",
        ),
        (lambda: energy_of(Wrapped((3,), local_class())), "could not be found again by an import"),
        (lambda: energy_of(Wrapped((3,), Hidden)), "cannot be handed to other processes"),
    ],
    ids=["closed form", "published", "local", "lambda"],
)
def test_a_model_that_cannot_be_shared_out_is_left_out(energy: Any, why: str) -> None:
    with pytest.raises(UserError, match=why):
        require_shareable(energy(), CPU)


def test_what_this_pytorch_has_not_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    energy = energy_of(MLP((3,), width=4, depth=1))
    require_shareable(energy, CPU)
    with pytest.raises(UserError, match="no way to share weights out on mps"):
        require_shareable(energy, torch.device("mps"))
    monkeypatch.setattr(dist, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"no torch\.distributed"):
        require_shareable(energy, CPU)


def test_the_table_says_why() -> None:
    found = checked(GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), 0.2))
    assert found["sharded"] == Checked("sharded", why="a closed form has no weights to share out")
