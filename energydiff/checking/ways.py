"""The ways in which a model's field is computed: precision, kernels, compiler, file, processes."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._python_dispatch import TorchDispatchMode

from energydiff.checking.measures import Answers, Asked, States, answers
from energydiff.checking.sharded import answers_in_parts, require_shareable
from energydiff.derivatives import full_precision
from energydiff.energies import Energy
from energydiff.errors import UserError
from energydiff.saving import SavedModel, describe, rebuild, tensors

FLOAT32, BFLOAT16, TF32 = 1e-4, 5e-2, 1e-2


class NotTaken(Exception):
    """A way is none for this model, with the reason."""


@dataclass(frozen=True)
class Way:
    """One way.

    Attributes:
        name: in a few words.
        make: the model as it is computed this way.
        scope: in which it is asked.
        tolerance: relative error of a first derivative that rounding explains.
        learning: its training gradient is looked at.
        ask: as :func:`answers`, which it is unless a way needs more; may raise :class:`NotTaken`.
    """

    name: str
    make: Callable[[], Energy]
    scope: Callable[[], AbstractContextManager[None]] = nullcontext  # type: ignore[assignment]
    tolerance: float = FLOAT32
    learning: bool = False
    ask: Callable[[Asked, States, bool], Answers] = answers


def ways_of(
    model: SavedModel, device: torch.device, compiled: bool, sharded: bool
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

    full = partial(full_precision, device)  # where PyTorch's own choice is TF32 for convolutions
    ways = [
        Way("float32, sampling", evaluating),
        Way("float32, training", training, full, learning=True),
        Way("bf16-mixed, training", training, lambda: _autocast(device), BFLOAT16, True),
        Way("SDPA unfused, training", training, full, learning=True, ask=_unfused),
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
            Way("compiled, training", lambda: _compiled(training()), full, learning=True),
        ]
    else:
        left_out["compiled"] = "a closed form is not" if compiled else "left out"
    why_not = _why_unshareable(energy, device) if sharded else "left out"
    if why_not:
        left_out["sharded"] = why_not
    else:
        ask = partial(answers_in_parts, device=device)
        ways += [
            Way("sharded, sampling", evaluating, ask=ask),
            Way("sharded, training", training, learning=True, ask=ask),
        ]
    return ways, left_out


def _why_unshareable(energy: Energy, device: torch.device) -> str | None:
    """What keeps it from being shared by processes, if anything."""
    try:
        require_shareable(energy, device)
    except UserError as error:
        return str(error)
    return None


class _Fused(TorchDispatchMode):
    """Sees whether a fused attention is run in it."""

    seen = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen |= func.__name__.startswith("_scaled_dot_product")
        return func(*args, **(kwargs or {}))


def _unfused(asked: Asked, states: States, learning: bool) -> Answers:
    """Where PyTorch may take no fused kernel, if it takes one in the other ways."""
    with _Fused() as fused:
        answers(asked, states, learning=False)
    if not fused.seen:
        raise NotTaken("no fused attention is used here, or none at this size")
    with sdpa_kernel(SDPBackend.MATH):
        return answers(asked, states, learning)


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
