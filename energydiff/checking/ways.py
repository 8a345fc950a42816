"""The ways in which a model's field is computed: precision, kernels, compiler, file."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.modules.dropout import _DropoutNd

from energydiff.energies import Energy
from energydiff.saving import SavedModel, describe, rebuild, tensors

FLOAT32, BFLOAT16, TF32 = 1e-4, 5e-2, 1e-2


@dataclass(frozen=True)
class Way:
    """One way.

    Attributes:
        name: in a few words.
        make: the model as it is computed this way.
        scope: in which it is asked.
        tolerance: relative error of a first derivative that rounding explains.
        learning: its training gradient is looked at.
    """

    name: str
    make: Callable[[], Energy]
    scope: Callable[[], AbstractContextManager[None]] = nullcontext  # type: ignore[assignment]
    tolerance: float = FLOAT32
    learning: bool = False


def ways_of(
    model: SavedModel, device: torch.device, compiled: bool
) -> tuple[list[Way], dict[str, str]]:
    """Those that this machine has, and by name why the others are left out."""
    energy = model.denoiser.require_energy()

    def evaluating() -> Energy:
        return copy.deepcopy(energy).float().to(device).eval().requires_grad_()

    def training() -> Energy:
        model = evaluating().train()
        for part in model.modules():
            if isinstance(part, _DropoutNd):  # noise that is meant
                part.eval()
        return model

    ways = [
        Way("float32, sampling", evaluating),
        Way("float32, training", training, learning=True),
        Way("bf16-mixed, training", training, lambda: _autocast(device), BFLOAT16, True),
        Way("exported and loaded", lambda: _loaded(model, device)),
    ]
    left_out = {}
    if device.type == "cuda":
        ways.append(Way("TF32, training", training, _tf32, TF32, True))
    else:
        left_out["TF32"] = f"a {device.type} has none"
    if compiled and hasattr(energy, "compiler"):
        ways += [
            Way("compiled, sampling", lambda: _compiled(evaluating())),
            Way("compiled, training", lambda: _compiled(training()), learning=True),
        ]
    else:
        left_out["compiled"] = "a closed form is not" if compiled else "left out"
    return ways, left_out


def _compiled(energy: Energy) -> Energy:
    energy.compiler = "inductor"  # type: ignore[assignment]
    return energy


def _loaded(model: SavedModel, device: torch.device) -> Energy:
    again = rebuild(describe(model), tensors(model), Path("the model's own description"))
    return again.denoiser.require_energy().float().to(device).requires_grad_()


@contextmanager
def _autocast(device: torch.device) -> Iterator[None]:
    with torch.autocast(device.type, torch.bfloat16):
        yield


@contextmanager
def _tf32() -> Iterator[None]:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
