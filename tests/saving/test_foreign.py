"""Classes from outside the package are saved by import path and found where they are imported."""

import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn

import energydiff
from energydiff.denoisers import build_denoiser
from energydiff.energies import Denoiser
from energydiff.errors import UserError
from energydiff.potentials import Backbone, Potential, Wrapped

SHAPE = (1, 4, 4)


class Net(Backbone):
    """A backbone of one's own, with arguments that are none of the defaults."""

    def __init__(
        self, shape: tuple[int, ...], widths: tuple[int, ...] = (4,), num_classes: int = 0
    ) -> None:
        super().__init__()
        self.shape, self.num_classes = tuple(shape), num_classes
        sizes = [17, *widths, 16]
        self.layers = nn.ModuleList(map(nn.Linear, sizes[:-1], sizes[1:]))

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        h = torch.cat([u.flatten(1), c[:, None]], 1)
        for layer in self.layers:
            h = layer(h).tanh()
        return h.view_as(u)


class Plain(nn.Module):
    """f(x, t)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(17, width), nn.Linear(width, 16)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.last(self.first(torch.cat([x.flatten(1), t[:, None]], 1)).tanh()).view_as(x)


class Scaled(Potential):
    """A parametrization of one's own."""

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        return 0.1 * (u * self.backbone(u, c, label)).flatten(1).sum(1)


OWN = f"{Scaled.__module__}.Scaled"
MODELS = {
    "backbone": lambda: build_denoiser(Net(SHAPE, (6, 5)), 0.6),
    "baseline": lambda: build_denoiser(Net(SHAPE, (6, 5)), 0.6, "unconstrained"),
    "wrapped": lambda: build_denoiser(Wrapped(SHAPE, Plain, {"width": 7}, 4.0), 0.6, "sum"),
    "parametrization": lambda: build_denoiser(Net(SHAPE), 0.6, OWN),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_it_comes_back_as_it_was(make, save, tmp_path: Path) -> None:
    model = make().eval()
    again = energydiff.load(save.export(tmp_path, model))
    x = torch.randn(3, *SHAPE)
    assert torch.equal(model.denoise(x, 0.5), again.denoise(x, 0.5))
    assert type(again) is type(model) and again.describe() == model.describe()


def test_an_export_names_it_by_import_path_and_keeps_its_arguments(save, tmp_path: Path) -> None:
    file = save.export(tmp_path, MODELS["wrapped"]()) / "model.yaml"
    assert yaml.safe_load(file.read_text())["model"]["backbone"] == {
        "class": "Wrapped",
        "shape": [1, 4, 4],
        "network": f"{Plain.__module__}.Plain",
        "arguments": {"width": 7},
        "time_scale": 4.0,
        "num_classes": 0,
    }


@pytest.mark.parametrize("name", ["backbone", "wrapped", "parametrization"])
def test_where_its_module_is_not_imported_a_sentence_says_what_to_add(
    name: str, save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save.export(tmp_path, MODELS[name]())
    monkeypatch.delitem(sys.modules, __name__)
    with pytest.raises(UserError, match=f"add --import {__name__}"):
        energydiff.load(folder)


class Untold(Denoiser):
    """Keeps a tensor under another name than its argument's."""

    def __init__(self, points: Tensor) -> None:
        super().__init__()
        self.shape = tuple(points.shape[1:])
        self.register_buffer("data", points)

    def denoise(self, x, sigma, label=None):
        return x


class Hidden(Denoiser):
    """Keeps a model where its tensors are not saved."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__()
        self.shape, self.inner = inner.shape, [inner]

    def denoise(self, x, sigma, label=None):
        return x


class Unplain(Denoiser):
    """Takes what no file holds."""

    shape = SHAPE

    def __init__(self, function: object) -> None:
        super().__init__()

    def denoise(self, x, sigma, label=None):
        return x


REFUSED = {
    "tensor": (lambda: Untold(torch.zeros(2, *SHAPE)), "Untold.points is a tensor: keep it as"),
    "model": (lambda: Hidden(Untold(torch.zeros(2, *SHAPE))), "keeps in no attribute"),
    "function": (lambda: Unplain(print), "Unplain.function is a builtin_function_or_method"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_could_not_be_built_again_is_not_saved(
    make, message: str, save, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        save.export(tmp_path, make())
    assert not list(tmp_path.iterdir())


class Outer:
    class Inner(Net):
        """A class inside a class has no import path that finds it."""


def test_a_class_inside_a_class_is_not_saved(save, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Outer\.Inner of .* could not be found again"):
        save.export(tmp_path, build_denoiser(Outer.Inner(SHAPE), 0.6))
