"""Pipelines that ``diffusers`` has saved, as models of this package.

A folder with model_index.json, a U-Net of images and the scheduler it was trained with. Nothing is
imported or unpickled: the class of the U-Net has to be there (``--import diffusers``), and its
weights are safetensors.
"""

import json
from pathlib import Path
from typing import Any

from torch import nn

from energydiff.data.normalization import Normalization
from energydiff.denoisers import UnconstrainedDenoiser
from energydiff.energies import NoiseRange
from energydiff.errors import UserError
from energydiff.potentials.discrete_time import DiscreteTime
from energydiff.registry import find

INDEX, SCHEDULER = "model_index.json", "scheduler/scheduler_config.json"


def is_pipeline(path: Path) -> bool:
    """Whether a folder is a pipeline of ``diffusers``, of whatever parts."""
    return (path / INDEX).is_file()


def open_pipeline(folder: Path) -> tuple[UnconstrainedDenoiser, Normalization]:
    """The denoiser of a pipeline, exactly, for images read as -1 to 1.

    Raises:
        UserError: it has other parts, as a text encoder or an autoencoder, its U-Net takes classes
            or foretells variances, or a file is missing.
    """
    index = _read(folder / INDEX)
    parts = {name: part for name, part in index.items() if isinstance(part, list) and any(part)}
    if parts.keys() != {"unet", "scheduler"}:
        raise UserError(
            f"{folder} is a pipeline of {', '.join(sorted(parts))}: only those of a unet and a"
            " scheduler, which make images of noise, can be opened."
        )
    config, chain = (_read(folder / name) for name in ("unet/config.json", SCHEDULER))
    arguments = {name: value for name, value in config.items() if not name.startswith("_")}
    channels, size = arguments.get("in_channels"), arguments.get("sample_size")
    if not isinstance(channels, int) or not size:
        raise UserError(f"the U-Net of {folder} does not say in_channels and sample_size.")
    size = size if isinstance(size, list) else [size, size]
    if arguments.get("num_class_embeds") or arguments.get("out_channels") != channels:
        raise UserError(
            f"the U-Net of {folder} takes classes, or answers with {arguments.get('out_channels')}"
            f" channels to {channels}: only one that answers an image with its like can be opened."
        )
    if chain.get("trained_betas") or chain.get("rescale_betas_zero_snr"):
        raise UserError(
            f"the scheduler of {folder} has betas of its own (trained_betas,"
            " rescale_betas_zero_snr): only published schedules can be opened."
        )
    kind = find(nn.Module, ".".join(parts["unet"]), f"the U-Net of {folder}")
    try:
        trained = kind.from_pretrained(  # type: ignore[attr-defined]
            folder / "unet", use_safetensors=True, local_files_only=True
        )
        backbone = DiscreteTime(
            (channels, *size),
            kind,
            arguments,
            chain["prediction_type"],
            chain["beta_schedule"],
            chain["beta_start"],
            chain["beta_end"],
            chain["num_train_timesteps"],
        )
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{folder} cannot be opened: {' '.join(str(error).split())}") from error
    backbone.network.load_state_dict(trained.state_dict())
    denoiser = UnconstrainedDenoiser(backbone, 1.0)
    denoiser.noise = NoiseRange(*backbone.log_levels[[0, -1]].double().exp().tolist())
    denoiser.eval().requires_grad_(False)
    return denoiser, Normalization(0, 255)


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: a pipeline needs it ({error}).") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} is not of a diffusers pipeline.")
    return content
