"""Features of a model's samples, drawn once, in chunks of seeds that outlive an interruption."""

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from energydiff.data import Normalization
from energydiff.data.normalization import quantised
from energydiff.drawing import draw_features
from energydiff.evaluation.extractors import Extractor
from energydiff.evaluation.images import QUANTISATION
from energydiff.evaluation.opened import OpenedModel
from energydiff.evaluation.reference import versions
from energydiff.evaluation.settings import Settings
from energydiff.files import write_json, write_whole
from energydiff.random import RULE
from energydiff.ranks import is_first_rank, rank_count
from energydiff.saving import digest_of

CHUNK = 1_000
DEGRADATION = "a blur by [1 6 1]/8 in both directions"


class Candidate:
    """A model to be measured: features of its samples, kept under all they depend on.

    Attributes:
        model: the model, and ``digest`` the SHA-256 of its weights.
    """

    def __init__(self, model: OpenedModel, extractor: Extractor, settings: Settings) -> None:
        self.model, self.extractor, self.settings = model, extractor, settings
        self.digest = digest_of(model.saved)

    def features(
        self, first: int, count: int, *, steps: int | None = None, degraded: bool = False
    ) -> Tensor:
        """Of samples ``first`` to ``first + count − 1``, (count, f) float32, logits included.

        With ``degraded`` also of the same images blurred, side by side, (count, 2f). What an
        earlier call or run has drawn is read; a file that cannot be is drawn anew.
        """
        settings = replace(self.settings, steps=steps or self.settings.steps)
        saved = self.model.saved
        how = {
            "model": self.digest,
            "extractor": self.extractor.name,
            "extractor_hash": self.extractor.digest,
            "resize": self.extractor.resize,
            "sampler": settings.sampler,
            "steps": settings.steps,
            "sigmas": list(saved.denoiser.require_noise()),
            "seed": settings.seed,
            "noise": RULE,
            "quantisation": QUANTISATION,
            "degraded": DEGRADATION if degraded else None,
            "versions": versions(),
        }
        if (decoder := saved.normalization.decoder) is not None:
            how["decoder"] = decoder.digest
        key = hashlib.sha256(json.dumps(how, indent=1).encode()).hexdigest()
        folder = settings.store / key[:16]
        if is_first_rank() and not (folder / "provenance.json").is_file():
            write_json(folder / "provenance.json", how)
        parts, start, stop = [], first, first + count
        while start < stop:
            end = min(stop, (start // CHUNK + 1) * CHUNK)
            parts.append(self._chunk(folder, range(start, end), settings, degraded))
            start = end
        return torch.cat(parts)

    def _chunk(self, folder: Path, numbers: range, settings: Settings, degraded: bool) -> Tensor:
        width = (self.extractor.dim + self.extractor.classes) * (2 if degraded else 1)
        for file in folder.glob(f"{numbers.start}-*.npy"):
            end = int(file.stem.split("-")[1])
            shape = (end - numbers.start, width)
            known = _read(file, shape) if end >= numbers.stop else None
            if known is not None:
                return known[: len(numbers)]
        saved = self.model.saved
        found = draw_features(
            saved.denoiser,
            settings.sampler_of(saved),
            numbers,
            settings.drawing,
            Quantised(self.extractor, saved.normalization, degraded),
        )
        if is_first_rank():
            content = io.BytesIO()
            np.save(content, found.numpy())
            write_whole(folder / f"{numbers.start}-{numbers.stop}.npy", content.getvalue())
        if rank_count() > 1:
            torch.distributed.barrier()  # or one rank may read what another would draw
        return found


class Quantised(nn.Module):
    """Samples in model coordinates to features of the uint8 images they are shown as.

    Those of a sample that is not finite are NaN: rounding would make an image of it.

    Args:
        degraded: also of the same images blurred, beside them.
    """

    def __init__(self, extractor: Extractor, normalization: Normalization, degraded: bool) -> None:
        super().__init__()
        self.extractor, self.normalization, self.degraded = extractor, normalization, degraded

    def forward(self, samples: Tensor) -> Tensor:
        """(B, \\*shape) to (B, f), or (B, 2f)."""
        pictures = self.normalization.to_picture(samples)
        found: Tensor = self.extractor(quantised(pictures))
        if self.degraded:
            blurred = self.extractor(quantised(blur(pictures)))
            found = torch.cat([found, blurred], 1)
        finite = samples.isfinite().flatten(1).all(1).to(found.device)
        return found.masked_fill(~finite[:, None], torch.nan)


def blur(images: Tensor) -> Tensor:
    """The known degradation: (B, C, H, W) smoothed by [1 6 1]/8 along height and width."""
    kernel = images.new_tensor([1.0, 6.0, 1.0]) / 8
    channels = images.shape[1]
    weight = (kernel[:, None] * kernel).expand(channels, 1, 3, 3)
    padded = nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
    return nn.functional.conv2d(padded, weight, groups=channels)


def _read(file: Path, shape: tuple[int, ...]) -> Tensor | None:
    try:
        array = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return torch.from_numpy(array) if array.shape == shape else None
