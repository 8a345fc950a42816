"""Features of a model's samples, drawn once, in chunks of seeds that outlive an interruption."""

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from energydiff.data import Normalization
from energydiff.evaluation.extractors import Extractor
from energydiff.evaluation.images import QUANTISATION
from energydiff.files import write_whole
from energydiff.sampling import (
    DPMSolver2M,
    Euler,
    GuardedEuler,
    GuardedHeun,
    Heun,
    Sampler,
    karras_sigmas,
)
from energydiff.saving import SavedModel, describe
from energydiff.training.predict import SampleRequest, draw_features, is_first_rank

CHUNK = 1_000
DEGRADATION = "a blur by [1 6 1]/8 in both directions"
SAMPLERS: dict[str, type[Sampler]] = {
    "euler": Euler,
    "heun": Heun,
    "guarded_euler": GuardedEuler,
    "guarded_heun": GuardedHeun,
    "dpm_solver_2m": DPMSolver2M,
}


@dataclass(frozen=True)
class Drawing:
    """How samples are drawn: sample i depends on (seed, i) and on these alone.

    Attributes:
        sampler: one of ``SAMPLERS``.
        steps: on Karras' grid from the model's σ_max to its σ_min, then a final denoising.
        seed: of the whole set.
        batch_size: samples at a time on each device.
        devices, accelerator: as in Lightning.
    """

    sampler: str
    steps: int
    seed: int
    batch_size: int
    devices: int
    accelerator: str

    def method(self, model: SavedModel, steps: int | None = None) -> Sampler:
        """The sampler on the grid of a model, with these or other ``steps``."""
        sigmas = karras_sigmas(steps or self.steps, model.sigma_min, model.sigma_max)
        return SAMPLERS[self.sampler](sigmas, final_denoise=True)


class Quantised(nn.Module):
    """Samples in model coordinates to features of the uint8 images they are shown as.

    Args:
        degraded: also of the same images blurred, beside them.
    """

    def __init__(self, extractor: Extractor, normalization: Normalization, degraded: bool) -> None:
        super().__init__()
        self.extractor, self.normalization, self.degraded = extractor, normalization, degraded

    def forward(self, samples: Tensor) -> Tensor:
        """(B, C, H, W) to (B, f), or (B, 2f)."""
        images = self.normalization.to_uint8(samples)
        found: Tensor = self.extractor(images)
        if not self.degraded:
            return found
        blurred: Tensor = self.extractor(self.normalization.to_uint8(blur(samples)))
        return torch.cat([found, blurred], 1)


def blur(images: Tensor) -> Tensor:
    """The known degradation: (B, C, H, W) smoothed by [1 6 1]/8 along height and width."""
    kernel = images.new_tensor([1.0, 6.0, 1.0]) / 8
    channels = images.shape[1]
    weight = (kernel[:, None] * kernel).expand(channels, 1, 3, 3)
    padded = nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
    return nn.functional.conv2d(padded, weight, groups=channels)


class Draws:
    """Features of one model's samples, kept below ``store`` under all they depend on."""

    def __init__(self, model: SavedModel, extractor: Extractor, how: Drawing, store: Path) -> None:
        self.model, self.extractor, self.how, self.store = model, extractor, how, store
        self.digest = digest_of(model)

    def features(
        self, first: int, count: int, *, steps: int | None = None, degraded: bool = False
    ) -> Tensor:
        """Of samples ``first`` to ``first + count − 1``, (count, f) float32, logits included.

        With ``degraded`` also of the same images blurred, side by side, (count, 2f). What an
        earlier call or run has drawn is read; a file that cannot be is drawn anew.
        """
        how = {
            "model": self.digest,
            "extractor": self.extractor.name,
            "extractor_hash": self.extractor.digest,
            "sampler": self.how.sampler,
            "steps": steps or self.how.steps,
            "sigmas": [self.model.sigma_min, self.model.sigma_max],
            "seed": self.how.seed,
            "quantisation": QUANTISATION,
            "degraded": DEGRADATION if degraded else None,
        }
        text = json.dumps(how, indent=1)
        folder = self.store / hashlib.sha256(text.encode()).hexdigest()[:16]
        if is_first_rank() and not (folder / "provenance.json").is_file():
            write_whole(folder / "provenance.json", text.encode())
        parts, start, stop = [], first, first + count
        while start < stop:
            end = min(stop, (start // CHUNK + 1) * CHUNK)
            parts.append(self._chunk(folder / f"{start}-{end}.npy", start, end, steps, degraded))
            start = end
        found = torch.cat(parts)
        assert len(found) == count
        return found

    def _chunk(self, file: Path, start: int, stop: int, steps: int | None, two: bool) -> Tensor:
        width = self.extractor.dim + self.extractor.classes
        known = _read(file, (stop - start, 2 * width if two else width))
        if known is not None:
            return known
        found = draw_features(
            self.model.denoiser,
            self.how.method(self.model, steps),
            SampleRequest(
                stop - start,
                seed=self.how.seed,
                batch_size=self.how.batch_size,
                trace=False,
                first=start,
            ),
            Quantised(self.extractor, self.model.normalization, two),
            devices=self.how.devices,
            accelerator=self.how.accelerator,
        )
        if is_first_rank():
            content = io.BytesIO()
            np.save(content, found.numpy())
            write_whole(file, content.getvalue())
        return found


def digest_of(model: SavedModel) -> str:
    """SHA-256 of a model's weights and of what they are the weights of."""
    state = {name: t.detach().cpu().contiguous() for name, t in model.denoiser.state_dict().items()}
    text: dict[str, Any] = describe(model)
    kept = {name: text[name] for name in ("model", "normalization", "sigma_min", "sigma_max")}
    weights = safetensors.torch.save(state)
    return hashlib.sha256(weights + json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _read(file: Path, shape: tuple[int, ...]) -> Tensor | None:
    try:
        array = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return torch.from_numpy(array) if array.shape == shape else None
