"""What the tests of saving share."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

import energydiff
from energydiff.data import Normalization
from energydiff.denoisers import build_denoiser
from energydiff.energies import Denoiser, NoiseRange
from energydiff.potentials import (
    MLP,
    InputConvex,
    NaturalConvex,
    NaturalConvexConv,
    Transformer,
    UNet,
)
from energydiff.saving import CHECKPOINT_KEY, SavedModel, describe

SHAPE = (1, 4, 4)
BACKBONES = {
    "mlp": lambda: MLP(SHAPE, width=8, depth=1, num_classes=2),
    "unet": lambda: UNet(SHAPE, 4, (1, 2), 1, attention_resolutions=(2,), head_width=4),
    "transformer": lambda: Transformer(SHAPE, width=8, depth=1, heads=2, mlp_ratio=2),
    "convex": lambda: InputConvex(SHAPE, width=8, depth=2),
    "natural": lambda: NaturalConvex(SHAPE, 4, 3, num_classes=2),
    "natural-conv": lambda: NaturalConvexConv(SHAPE, 4, 3),
}


def network(backbone: str = "mlp", parametrization: str = "inner_product") -> Denoiser:
    """With weights, and a gauge, that are nowhere zero."""
    model = build_denoiser(BACKBONES[backbone](), 0.6, parametrization)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(0.1 * torch.rand_like(value))
    model.load_state_dict(model.state_dict())  # what is derived of them follows
    return model


def saved(model: Denoiser) -> SavedModel:
    classes = ("eins", "δύο")[: model.num_classes]
    model.noise = NoiseRange(0.03, 7.0)
    return SavedModel(model, Normalization(0, 16), classes, {"a": [1]})


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


@pytest.fixture
def save() -> SimpleNamespace:
    """The functions above: models, and ways to leave them on disk."""
    return SimpleNamespace(
        network=network, saved=saved, export=export, edit=edit, checkpoint=checkpoint
    )
