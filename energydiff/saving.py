"""Saved models: an export of two plain files, or a training checkpoint.

An export is a folder with ``model.safetensors`` (weights, gauge included) and ``model.yaml`` (what
they are the weights of). Loading one instantiates classes of this package only, by name from the
table below, and unpickles nothing. A checkpoint is read with ``weights_only=True``.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import safetensors
import safetensors.torch
import torch
import yaml
from torch import Tensor

from energydiff._version import __version__
from energydiff.data.normalization import Normalization
from energydiff.denoisers import (
    BLIND_POTENTIALS,
    POTENTIALS,
    BlindEnergy,
    EnergyDenoiser,
    UnconstrainedDenoiser,
    build_denoiser,
)
from energydiff.energies import Denoiser, EmpiricalData, GaussianMixture
from energydiff.errors import UserError
from energydiff.files import write_whole
from energydiff.memory import (
    BinaryHopfield,
    ContinuousHopfield,
    EpanechnikovMemory,
    ExponentialMemory,
    LogSumExpMemory,
    Memory,
    PolynomialMemory,
)
from energydiff.potentials import (
    MLP,
    EnergyTransformer,
    InputConvex,
    Network,
    PublishedEnergyTransformer,
    TokenNetwork,
    Transformer,
    UNet,
)

FORMAT = "energydiff-model-1"
CHECKPOINT_KEY = "energydiff"
LAST_CHECKPOINT = Path("checkpoints") / "last.ckpt"
_BACKBONES: dict[str, type[Network]] = {
    c.__name__: c
    for c in (
        MLP,
        UNet,
        Transformer,
        TokenNetwork,
        InputConvex,
        EnergyTransformer,
        PublishedEnergyTransformer,
    )
}
_MEMORIES: dict[str, type[Memory]] = {
    c.__name__: c
    for c in (
        LogSumExpMemory,
        EpanechnikovMemory,
        PolynomialMemory,
        ExponentialMemory,
        BinaryHopfield,
        ContinuousHopfield,
    )
}


@dataclass(frozen=True)
class SavedModel:
    """A denoiser with what it takes to use it on data.

    Attributes:
        denoiser: in eval mode, its parameters frozen.
        normalization: raw values to model coordinates.
        sigma_min, sigma_max: noise levels it was made for.
        classes: class names, in label order; empty without labels.
        config: the resolved configuration of the run that trained it, if any.
    """

    denoiser: Denoiser
    normalization: Normalization
    sigma_min: float = 0.02
    sigma_max: float = 80.0
    classes: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)


def load(path: str | Path) -> Denoiser:
    """The model of a run folder, a checkpoint or an export: ready to sample, on the CPU.

    Weights are the exponential moving average. ``UserError`` if there is no model at ``path``.
    """
    return open_model(path).denoiser


def open_model(path: str | Path) -> SavedModel:
    """Like :func:`load`, with everything that is saved beside the weights."""
    path = Path(path)
    if (path / "model.yaml").is_file():
        return _open_export(path)
    if (path / LAST_CHECKPOINT).is_file():
        return _open_checkpoint(path / LAST_CHECKPOINT)
    if path.is_file():
        return _open_checkpoint(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; give a run folder, a checkpoint or an export.")
    raise UserError(
        f"{path} holds no model: neither model.yaml (an export) nor {LAST_CHECKPOINT} (a run)."
    )


def save_model(model: SavedModel, folder: str | Path) -> None:
    """Write an export; each file replaces its predecessor in one step."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: t.detach().cpu().contiguous() for name, t in model.denoiser.state_dict().items()}
    write_whole(folder / "model.safetensors", safetensors.torch.save(state))
    text = yaml.safe_dump(describe(model), sort_keys=False, allow_unicode=True)
    write_whole(folder / "model.yaml", text.encode())


def describe(model: SavedModel) -> dict[str, Any]:
    """All but the tensors, as plain data."""
    return {
        "format": FORMAT,
        "model": _describe_denoiser(model.denoiser),
        "normalization": {"low": model.normalization.low, "high": model.normalization.high},
        "sigma_min": model.sigma_min,
        "sigma_max": model.sigma_max,
        "classes": list(model.classes),
        "versions": {
            "energydiff": __version__,
            "torch": str(torch.__version__),
            "numpy": numpy.__version__,
            "python": sys.version.split()[0],
        },
        "config": model.config,
    }


def rebuild(
    description: Mapping[str, Any], state: Mapping[str, Tensor], origin: Path
) -> SavedModel:
    """The inverse of :func:`describe`; ``UserError`` naming ``origin`` where it cannot be done."""
    if not isinstance(description, Mapping) or description.get("format") != FORMAT:
        raise UserError(
            f"{origin} is not a model of this package: its format should be {FORMAT!r}."
        )
    try:
        denoiser = _build(description["model"], state, origin)
        normalization = Normalization(**description["normalization"])
        sigma_min, sigma_max = float(description["sigma_min"]), float(description["sigma_max"])
        classes = description["classes"]
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RuntimeError,
        ArithmeticError,
    ) as error:
        raise UserError(f"{origin} does not describe a model: {error}.") from error
    if not 0 < sigma_min < sigma_max < float("inf"):
        raise UserError(f"{origin} has noise levels {sigma_min} to {sigma_max}, which is no range.")
    if type(denoiser).__name__ != description["model"]["class"]:
        raise UserError(
            f"{origin} names the model {description['model']['class']}, but its parametrization"
            f" makes {type(denoiser).__name__}."
        )
    strings = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    if not strings or len(classes) not in (0, denoiser.num_classes):
        raise UserError(
            f"{origin} has classes {classes!r}; they must be a list of {denoiser.num_classes}"
            " names, as many as the model's classes, or empty."
        )
    expected = denoiser.state_dict()
    wrong = sorted(
        (expected.keys() ^ state.keys())
        | {k for k in expected.keys() & state.keys() if expected[k].shape != state[k].shape}
    )
    if wrong:
        raise UserError(
            f"the weights in {origin} do not fit the model described there"
            f" ({len(wrong)} tensors missing, unknown or of another shape, first {wrong[0]})."
        )
    denoiser.load_state_dict(dict(state))
    denoiser.eval().requires_grad_(False)
    config = description.get("config") or {}
    return SavedModel(denoiser, normalization, sigma_min, sigma_max, tuple(classes), config)


def _describe_denoiser(denoiser: Denoiser) -> dict[str, Any]:
    match denoiser:
        case EnergyDenoiser() | BlindEnergy():
            kinds = (POTENTIALS | BLIND_POTENTIALS).items()
            potential = denoiser.potential
            parametrization = next(n for n, c in kinds if type(potential) is c)
            backbone = potential.backbone
        case UnconstrainedDenoiser():
            parametrization, backbone = "unconstrained", denoiser.backbone
        case GaussianMixture() | EmpiricalData():
            return {"class": type(denoiser).__name__}
        case Memory() if type(denoiser) in _MEMORIES.values():
            denoiser.check_states(denoiser.patterns)  # an empty memory says so
            return {"class": type(denoiser).__name__, **denoiser.config}
        case _:
            raise UserError(f"{type(denoiser).__name__} cannot be exported.")
    arguments = {k: list(v) if isinstance(v, tuple) else v for k, v in backbone.config.items()}
    return {
        "class": type(denoiser).__name__,
        "parametrization": parametrization,
        **({} if isinstance(denoiser, BlindEnergy) else {"sigma_data": denoiser.sigma_data}),
        "backbone": {"class": type(backbone).__name__, **arguments},
    }


def _build(model: Mapping[str, Any], state: Mapping[str, Tensor], origin: Path) -> Denoiser:
    match model["class"]:
        case "EnergyDenoiser" | "UnconstrainedDenoiser" | "BlindEnergy":
            arguments = dict(model["backbone"])
            backbone = _BACKBONES.get(arguments.pop("class", ""))
            if backbone is None:
                raise UserError(
                    f"{origin} names the backbone {model['backbone'].get('class')!r}, which this"
                    f" package does not have; it has {', '.join(_BACKBONES)}."
                )
            return build_denoiser(
                backbone(**arguments), model.get("sigma_data", 1.0), model["parametrization"]
            )
        case "EmpiricalData":
            return EmpiricalData(state["data"])
        case "GaussianMixture":
            return GaussianMixture(state["means"], state["std"], state["log_weights"].exp())
        case name if name in _MEMORIES:
            arguments = {k: v for k, v in model.items() if k != "class"}
            return _MEMORIES[name](**arguments).store(state["patterns"])
        case other:
            raise UserError(
                f"{origin} names the model {other!r}, which this package does not have."
            )


def _open_export(folder: Path) -> SavedModel:
    description_file, weights_file = folder / "model.yaml", folder / "model.safetensors"
    try:
        description = yaml.safe_load(description_file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{description_file} cannot be read: it is not plain YAML.") from error
    if not weights_file.is_file():
        raise UserError(
            f"{weights_file} is missing: an export is model.yaml and model.safetensors."
        )
    try:
        state = safetensors.torch.load_file(weights_file)
    except safetensors.SafetensorError as error:
        raise UserError(f"{weights_file} cannot be read: {error}.") from error
    return rebuild(description, state, folder)


def _open_checkpoint(file: Path) -> SavedModel:
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no pickle fail in as many ways as there are bytes
        raise UserError(
            f"{file} cannot be read as a checkpoint of this package (plain tensors only)."
        ) from error
    if not isinstance(checkpoint, dict) or not {CHECKPOINT_KEY, "state_dict"} <= checkpoint.keys():
        raise UserError(f"{file} is not a checkpoint of this package.")
    prefix = "denoiser."
    state = {
        name.removeprefix(prefix): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(prefix)
    }
    return rebuild(checkpoint[CHECKPOINT_KEY], state, file)
