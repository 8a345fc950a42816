"""Saved models: an export of two plain files, a training checkpoint, a pipeline of others.

An export is a folder with ``model.safetensors`` (weights, gauge included) and ``model.yaml`` (what
they are the weights of). Every model describes itself and is built by its class, found by name:
loading one imports nothing and unpickles nothing. A checkpoint is read with ``weights_only=True``.
"""

import hashlib
import json
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

import energydiff.denoisers
import energydiff.memory  # noqa: F401  (both make their classes known)
from energydiff._version import __version__
from energydiff.data.decoder import Decoder
from energydiff.data.normalization import Normalization, as_moments
from energydiff.energies import Denoiser, NoiseRange
from energydiff.energies.base import build_model
from energydiff.errors import UserError
from energydiff.files import whole, write_whole
from energydiff.pipeline import is_pipeline, open_pipeline
from energydiff.plain_yaml import read_yaml

FORMAT = "energydiff-model-1"
CHECKPOINT_KEY = "energydiff"
LAST_CHECKPOINT = Path("checkpoints") / "last.ckpt"


@dataclass(frozen=True)
class SavedModel:
    """A denoiser with what it takes to use it on data.

    Attributes:
        denoiser: in eval mode, its parameters frozen; its ``noise`` is kept.
        normalization: raw values to model coordinates.
        classes: class names, in label order; empty without labels.
        config: the resolved configuration of the run that trained it, if any.
    """

    denoiser: Denoiser
    normalization: Normalization
    classes: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)


def load(path: str | Path) -> Denoiser:
    """The model of a run folder, a checkpoint, an export or a diffusers pipeline: ready to sample,
    on the CPU.

    Weights are the exponential moving average. ``UserError`` if there is no model at ``path``.
    """
    return open_model(path).denoiser


def open_model(path: str | Path) -> SavedModel:
    """Like :func:`load`, with everything that is saved beside the weights."""
    path = Path(path)
    checkpoint = checkpoint_of(path)
    if is_pipeline(path):
        return SavedModel(*open_pipeline(path))
    return _open_export(path) if checkpoint is None else _open_checkpoint(checkpoint)


def checkpoint_of(path: Path) -> Path | None:
    """The checkpoint at a path, ``None`` for an export or a pipeline; ``UserError`` if there is no
    model."""
    if (path / "model.yaml").is_file() or is_pipeline(path):
        return None
    if (path / LAST_CHECKPOINT).is_file():
        return path / LAST_CHECKPOINT
    if path.is_file():
        return path
    if not path.exists():
        raise UserError(f"{path} does not exist; give a run folder, a checkpoint or an export.")
    raise UserError(
        f"{path} holds no model: neither model.yaml (an export) nor {LAST_CHECKPOINT} (a run)."
    )


def save_model(model: SavedModel, folder: str | Path) -> None:
    """Write an export; each file replaces its predecessor in one step."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(describe(model), sort_keys=False, allow_unicode=True)
    write_whole(folder / "model.safetensors", safetensors.torch.save(tensors(model)))
    write_whole(folder / "model.yaml", text.encode())


def tensors(model: SavedModel) -> dict[str, Tensor]:
    """Its weights and buffers by name, on the CPU, each with memory of its own."""
    state = model.denoiser.state_dict()
    return {
        name: t.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, t in state.items()
    }


def describe(model: SavedModel) -> dict[str, Any]:
    """All but the tensors, as plain data.

    Raises:
        UserError: the model could not be found again; see :meth:`Denoiser.describe`.
    """
    noise = model.denoiser.noise
    return {
        "format": FORMAT,
        "model": model.denoiser.describe(),
        "normalization": model.normalization.plain(),
        "sigma_min": None if noise is None else noise.sigma_min,
        "sigma_max": None if noise is None else noise.sigma_max,
        "classes": list(model.classes),
        "versions": {
            "energydiff": __version__,
            "torch": str(torch.__version__),
            "numpy": numpy.__version__,
            "python": sys.version.split()[0],
        },
        "config": model.config,
    }


def digest_of(model: SavedModel) -> str:
    """SHA-256 of a model's weights and of what they are the weights of."""
    text = describe(model)
    kept = {name: text[name] for name in ("model", "normalization", "sigma_min", "sigma_max")}
    weights = safetensors.torch.save(tensors(model))
    return hashlib.sha256(weights + json.dumps(kept, sort_keys=True).encode()).hexdigest()


def rebuild(
    description: Mapping[str, Any], state: Mapping[str, Tensor], origin: Path
) -> SavedModel:
    """The inverse of :func:`describe`; ``UserError`` naming ``origin`` where it cannot be done."""
    if not isinstance(description, Mapping) or description.get("format") != FORMAT:
        raise UserError(
            f"{origin} is not a model of this package: its format should be {FORMAT!r}."
        )
    try:
        denoiser = build_model(description["model"], state, f"the model in {origin}")
        normalization = _normalization(description["normalization"], description.get("config"))
        ends = description["sigma_min"], description["sigma_max"]
        denoiser.noise = None if ends == (None, None) else _noise_range(ends, origin)
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
    strings = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    if not strings or len(classes) not in (0, denoiser.num_classes):
        raise UserError(
            f"{origin} has classes {classes!r}; they must be a list of {denoiser.num_classes}"
            " names, as many as the model's classes, or empty."
        )
    wrong = differing(denoiser.state_dict(), state)
    if wrong:
        raise UserError(
            f"the weights in {origin} do not fit the model described there"
            f" ({len(wrong)} tensors missing, unknown or of another shape, first {wrong[0]})."
        )
    denoiser.load_state_dict(dict(state))
    denoiser.eval().requires_grad_(False)
    config = description.get("config") or {}
    return SavedModel(denoiser, normalization, tuple(classes), config)


def _normalization(plain: Mapping[str, Any], config: Any) -> Normalization:
    """As described, with the decoder that the run recorded, built when it is asked for."""
    decoder = config
    for name in ("data", "source", "init_args", "decoder"):
        decoder = decoder.get(name) if isinstance(decoder, Mapping) else None
    moments = plain.get("moments")
    return Normalization(
        plain["low"],
        plain["high"],
        None if moments is None else as_moments(*moments),
        None if decoder is None else Decoder(decoder),
    )


def differing(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that only one of two has, or the other has in another shape."""
    shared = one.keys() & other.keys()
    changed = {name for name in shared if one[name].shape != other[name].shape}
    return sorted((one.keys() ^ other.keys()) | changed)


def require_loadable(model: SavedModel) -> None:
    """``UserError`` now, rather than when it is loaded, for a model that could not be.

    Builds it once in memory from its own description; no random state moves.
    """
    with torch.random.fork_rng(devices=[]):
        again = rebuild(describe(model), model.denoiser.state_dict(), Path("this run"))
    if type(again.denoiser) is not type(model.denoiser):
        raise UserError(f"{type(model.denoiser).__name__} would be loaded as another class.")


def _noise_range(ends: tuple[Any, Any], origin: Path) -> NoiseRange:
    try:
        return NoiseRange(*map(float, ends))
    except UserError as error:
        raise UserError(f"{origin}: {error}") from error


def read_description(path: Path) -> dict[str, Any]:
    """What :func:`describe` gave for a run folder, checkpoint or export, of which no
    tensor is read, or for a pipeline."""
    checkpoint = checkpoint_of(path)
    if checkpoint is not None:
        return dict(read_checkpoint(checkpoint, mmap=True)[CHECKPOINT_KEY])
    description = (
        describe(open_model(path)) if is_pipeline(path) else _read_export_description(path)
    )
    return description if isinstance(description, dict) else {}


def _read_export_description(folder: Path) -> Any:
    file = folder / "model.yaml"
    try:
        return read_yaml(file.read_text(encoding="utf-8"), str(file))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: it is not plain YAML.") from error


def _open_export(folder: Path) -> SavedModel:
    description, weights_file = _read_export_description(folder), folder / "model.safetensors"
    if not weights_file.is_file():
        raise UserError(
            f"{weights_file} is missing: an export is model.yaml and model.safetensors."
        )
    try:
        state = safetensors.torch.load_file(weights_file)
    except safetensors.SafetensorError as error:
        raise UserError(f"{weights_file} cannot be read: {error}.") from error
    return rebuild(description, state, folder)


def read_checkpoint(file: Path, mmap: bool = False) -> dict[str, Any]:
    """All of a checkpoint of this package, its tensors on the CPU.

    mmap: tensors are read when they are asked for, for a look at what lies beside them.

    Raises:
        UserError: the file is no checkpoint, damaged or of another program.
    """
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # bytes that are no pickle fail in as many ways as there are bytes
        raise UserError(
            f"{file} cannot be read as a checkpoint of this package (plain tensors only): it is"
            " damaged or of another program; restore it from a copy, or remove it to start anew."
        ) from error
    parts = checkpoint if isinstance(checkpoint, dict) else {}
    about = parts.get(CHECKPOINT_KEY)
    described = isinstance(about, Mapping) and {"model", "config"} <= about.keys()
    if not described or not isinstance(parts.get("state_dict"), Mapping):
        raise UserError(f"{file} is not a checkpoint of this package.")
    return parts


def write_checkpoint(content: dict[str, Any], file: Path) -> None:
    """Replaces a checkpoint in one step; ``UserError`` where it cannot be written."""
    with whole(file) as partial, partial.open("wb") as stream:
        try:
            torch.save(content, stream)
        except RuntimeError as error:  # torch fails once more as it closes what is half written
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def _open_checkpoint(file: Path) -> SavedModel:
    checkpoint = read_checkpoint(file)
    prefix = "denoiser."
    state = {
        name.removeprefix(prefix): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(prefix)
    }
    return rebuild(checkpoint[CHECKPOINT_KEY], state, file)
