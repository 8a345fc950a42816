"""What could not be trained or loaded again is refused before the first step."""

import math

import pytest
import torch
from torch import Tensor, nn

from energydiff.data import Normalization
from energydiff.errors import UserError
from energydiff.potentials import MLP, Backbone, Wrapped
from energydiff.training import DiffusionModule

SHAPE = (1, 4, 4)


class Brought(Backbone):
    """At the top of a module, with an argument that may be anything."""

    def __init__(self, shape: tuple[int, ...], middle: object = None, num_classes: int = 0) -> None:
        super().__init__()
        self.shape, self.num_classes = tuple(shape), num_classes
        self.layer = nn.Linear(math.prod(shape), math.prod(shape))
        self.middle = middle if callable(middle) else torch.tanh

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        return self.middle(self.layer(u.flatten(1))).view_as(u)


class Rectified(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 16)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.layer(self.layer(x.flatten(1)).relu()).view_as(x)


def start(backbone: Backbone, parametrization: str = "inner_product") -> None:
    DiffusionModule(backbone, 0.8, Normalization(0, 16), parametrization).setup("fit")


def test_a_class_that_no_import_finds_is_refused() -> None:
    class Local(Brought):
        pass

    with pytest.raises(UserError, match=r"Local .*could not be found again by an import"):
        start(Local(SHAPE))


def test_a_class_of_the_running_script_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Brought, "__module__", "__main__")
    with pytest.raises(UserError, match="__main__ could not be found again by an import"):
        start(Brought(SHAPE))


def test_an_argument_that_no_file_can_hold_is_refused() -> None:
    with pytest.raises(UserError, match=r"Brought\.middle is a .*, which no file can hold"):
        start(Brought(SHAPE, middle=nn.Tanh()))


def test_a_kinked_module_is_refused_as_an_energy_and_taken_as_a_baseline() -> None:
    with pytest.raises(UserError, match="Rectified makes no energy"):
        start(Wrapped(SHAPE, Rectified))
    start(Wrapped(SHAPE, Rectified), "unconstrained")


def test_nothing_is_refused_of_what_the_package_has() -> None:
    network = MLP(SHAPE, 8, 1)
    state = torch.random.get_rng_state()
    start(network)
    assert torch.equal(state, torch.random.get_rng_state())
