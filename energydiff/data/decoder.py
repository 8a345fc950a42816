"""From samples that are no pictures, as latents, to the pictures that they stand for."""

import hashlib
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor, nn

from energydiff.derivatives import full_precision
from energydiff.errors import UserError
from energydiff.registry import build_recorded

BATCH = 16  # pictures decoded at once: a large autoencoder takes a GB for a few


class Decoder:
    """A module that makes images of raw samples; it is built when the first is asked for.

    The module is called with float32 (B, \\*shape) and answers with images (B, 1 or 3, H, W), black
    at -1 and white at 1. It runs on the device of the samples, and those of the CPU on an
    accelerator where there is one.

    Args:
        module: the module, or ``{class_path: …, init_args: {…}}`` as a run records it, of a class
            that has been imported.
    """

    def __init__(self, module: nn.Module | Mapping[str, Any]) -> None:
        self._given = module
        self._shapes: dict[tuple[int, ...], tuple[int, ...]] = {}

    def __deepcopy__(self, memo: object) -> Self:
        return self  # averaging copies all of a model, and this is no part of its weights

    @cached_property
    def module(self) -> nn.Module:
        """The module, frozen; ``UserError`` where it cannot be built."""
        module = self._given
        if not isinstance(module, nn.Module):
            try:
                with torch.random.fork_rng(devices=[]):  # it may be built while a model trains
                    module = build_recorded(nn.Module, module, "the decoder of this model")
            except (OSError, RuntimeError, ValueError, TypeError) as error:
                raise UserError(f"the decoder of this model cannot be built: {error}.") from error
        return module.eval().requires_grad_(False)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of its class and weights."""
        digest = hashlib.sha256(type(self.module).__name__.encode())
        for name, tensor in self.module.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of the image of a sample; ``UserError`` where the module makes none of it."""
        if shape not in self._shapes:
            name = type(self.module).__name__
            try:
                image = self(torch.zeros(1, *shape))
            except (RuntimeError, ValueError, TypeError, AttributeError) as error:
                raise UserError(
                    f"the decoder {name} makes no images of samples {shape}: {error}."
                ) from error
            self._shapes[shape] = tuple(image.shape[1:])
        return self._shapes[shape]

    def __call__(self, raw: Tensor) -> Tensor:
        """Raw samples (B, \\*shape) to images (B, 1 or 3, H, W), on the device of the samples."""
        images = apply_frozen(self.module, raw.float())
        if images.ndim != 4 or len(images) != len(raw) or images.shape[1] not in (1, 3):
            raise ValueError(
                f"it answered {tuple(images.shape)} to {tuple(raw.shape)}, and images are"
                " (B, 1 or 3, H, W)"
            )
        return images.float()


@torch.no_grad()
def apply_frozen(module: nn.Module, x: Tensor) -> Tensor:
    """module(x), a few at a time, back on the device of x.

    It runs on that device, and for x on the CPU on an accelerator where there is one.
    """
    device = x.device
    if device.type == "cpu" and torch.accelerator.is_available():
        device = torch.accelerator.current_accelerator() or device
    module = module.to(device)
    with full_precision(device):
        return torch.cat([module(part.to(device)).to(x.device) for part in x.split(BATCH)])
