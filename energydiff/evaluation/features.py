"""Features of a model's samples, drawn once, in chunks of seeds that outlive an interruption."""

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from energydiff.drawing.draw import SampleRequest, draw_features, is_first_rank
from energydiff.evaluation.drawing import DEGRADATION, Drawing, Quantised
from energydiff.evaluation.extractors import Extractor
from energydiff.evaluation.images import QUANTISATION
from energydiff.evaluation.reference import versions
from energydiff.files import write_whole
from energydiff.saving import SavedModel, describe

CHUNK = 1_000


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
        steps = steps or self.how.steps
        how = {
            "model": self.digest,
            "extractor": self.extractor.name,
            "extractor_hash": self.extractor.digest,
            "resize": self.extractor.resize,
            "sampler": self.how.sampler,
            "steps": steps,
            "sigmas": [self.model.sigma_min, self.model.sigma_max],
            "seed": self.how.seed,
            "quantisation": QUANTISATION,
            "degraded": DEGRADATION if degraded else None,
            "versions": versions(),
        }
        text = json.dumps(how, indent=1)
        folder = self.store / hashlib.sha256(text.encode()).hexdigest()[:16]
        if is_first_rank() and not (folder / "provenance.json").is_file():
            write_whole(folder / "provenance.json", text.encode())
        parts, start, stop = [], first, first + count
        while start < stop:
            end = min(stop, (start // CHUNK + 1) * CHUNK)
            parts.append(self._chunk(folder, start, end, steps, degraded))
            start = end
        found = torch.cat(parts)
        assert len(found) == count
        return found

    def _chunk(self, folder: Path, start: int, stop: int, steps: int, two: bool) -> Tensor:
        width = (self.extractor.dim + self.extractor.classes) * (2 if two else 1)
        for file in folder.glob(f"{start}-*.npy"):
            end = int(file.stem.split("-")[1])
            known = _read(file, (end - start, width)) if end >= stop else None
            if known is not None:
                return known[: stop - start]
        found = draw_features(
            self.model.denoiser,
            replace(self.how, steps=steps).method(self.model.sigma_min, self.model.sigma_max),
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
            write_whole(folder / f"{start}-{stop}.npy", content.getvalue())
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.barrier()  # or one rank may read what another would draw
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
