"""What comparable results share: data, extractor, reference, and how samples are drawn."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from energydiff.data import Splits
from energydiff.errors import UserError
from energydiff.evaluation.candidate import Candidate
from energydiff.evaluation.data import EvaluationData
from energydiff.evaluation.extractors import Extractor, open_extractor
from energydiff.evaluation.extractors.default import default_extractor
from energydiff.evaluation.frechet import frechet_distance, gaussian_statistics
from energydiff.evaluation.images import QUANTISATION, image_batches, open_images
from energydiff.evaluation.opened import OpenedModel
from energydiff.evaluation.quality import measure_quality, require_measurable
from energydiff.evaluation.records import BY_NUMBER, NO_RULE, SHUFFLED, Floor, Provenance, Result
from energydiff.evaluation.reference import Reference, reference_features, versions
from energydiff.evaluation.settings import Settings
from energydiff.random import RULE
from energydiff.saving import SavedModel


@dataclass(frozen=True)
class Measurement:
    """All that two results must share to be comparable, opened and ready.

    Attributes:
        data, splits: the data as named, and opened. ``reference`` its features.
    """

    data: EvaluationData
    splits: Splits
    extractor: Extractor
    reference: Reference
    settings: Settings

    @classmethod
    def open(cls, data: EvaluationData, settings: Settings) -> "Measurement":
        """Open data, extractor and reference, and refuse what cannot be measured."""
        splits = open_measurable(data, settings.num_samples)
        device = settings.drawing.device
        found = open_reference(data, splits, device, settings.weights, settings.store)
        return cls(data, splits, *found, settings)

    def candidate(self, model: OpenedModel) -> Candidate:
        """A model, which must make images like the reference's."""
        denoiser = model.saved.denoiser
        if denoiser.noise_blind:
            raise UserError(
                f"{model.path} is a noise-blind energy; quality is measured on samplers that go"
                " down noise levels: sample it with energydiff sample and give the folder of its"
                " images."
            )
        shape = tuple(denoiser.shape)
        self.reference.require_shape(model.saved.normalization.picture_shape(shape) or shape)
        return Candidate(model, self.extractor, self.settings)

    def provenance(self, model: SavedModel | None) -> Provenance:
        """What every number depends on beside the model; ``None`` for images of a folder."""
        low, high = model.denoiser.require_noise() if model else (0.0, 0.0)
        return Provenance(
            data=self.data.describe(),
            reference=self.reference.digest,
            reference_count=self.reference.count,
            extractor=self.extractor.name,
            extractor_hash=self.extractor.digest,
            resize=self.extractor.resize,
            quantisation=QUANTISATION,
            samples=self.settings.num_samples,
            blocks=self.settings.blocks,
            seed=self.settings.seed,
            sampler=self.settings.sampler if model else "none",
            steps=self.settings.steps if model else 0,
            sigma_min=low,
            sigma_max=high,
            weights="exponential moving average" if model else "images of a folder",
            versions=versions(),
            order=BY_NUMBER if model else SHUFFLED,
            noise=RULE if model else NO_RULE,
        )

    def measure(self, model: OpenedModel) -> Result:
        """Quality of a model's samples."""
        features = self.candidate(model).features(0, self.settings.num_samples)
        return self._result(model.path, features, model.saved)

    def measure_images(self, folder: Path) -> Result:
        """Quality of n images of a folder, drawn from all by the seed and their names.

        The order is a shuffle, so that blocks and a part of class folders have all classes; an
        image keeps its place beside the others when more are added.
        """
        source = open_images(folder, self.reference.shape[0])
        self.reference.require_shape(tuple(source.shape))
        n = self.settings.num_samples
        if len(source) < n:
            raise UserError(f"{folder} has {len(source):,} images, fewer than -n {n:,}: lower -n.")
        part = source.shuffled(self.settings.seed).select(np.arange(n))
        batches = image_batches(part, f"Features of {folder}")
        extractor = self._extractor()
        features = torch.cat([extractor(images).cpu() for images, _ in batches])
        return self._result(folder, features, None)

    def _result(self, path: Path, features: Tensor, model: SavedModel | None) -> Result:
        return Result(
            str(path),
            measure_quality(
                self.extractor.features(features),
                self.extractor.logits(features),
                self.reference.features,
            ),
            self.block_distances(features),
            self.floor(features),
            self.provenance(model),
        )

    def floor(self, features: Tensor) -> Floor:
        """Images of the other part beside as many samples, from their features (n, f)."""
        against_train = self.data.reference == "train"
        other = self.splits.held_out if against_train else self.splits.train
        part = other.spread(len(features))
        count = len(part)
        real = reference_features(part, self._extractor(), cache=self.settings.store).features
        samples = self.extractor.features(features[:count])
        name: Literal["held-out", "training"] = "held-out" if against_train else "training"
        return Floor(count, self.distance(real), self.distance(samples), name)

    def _extractor(self) -> Extractor:
        """On its device: after sampling Lightning left it elsewhere."""
        return self.extractor.to(self.settings.drawing.device)

    def distance(self, features: Tensor) -> float:
        """Fréchet distance of features (n, f) to the reference."""
        mine = gaussian_statistics(features)
        return frechet_distance(*mine, self.reference.mean, self.reference.cov)

    def block_distances(self, features: Tensor) -> list[float]:
        """The same of each block of features (n, f), or of features with logits beside them."""
        return [
            self.distance(part)
            for part in self.extractor.features(features).split(self.settings.block_size)
        ]


def open_measurable(data: EvaluationData, samples: int) -> Splits:
    """The data; ``UserError`` where so many samples cannot be set against its reference."""
    splits = data.open()
    reference = data.reference_of(splits)
    data.require_enough(samples, reference)
    require_measurable(samples, len(reference))
    return splits


def open_reference(
    data: EvaluationData,
    splits: Splits,
    device: torch.device,
    weights: Path | None,
    cache: Path | None,
) -> tuple[Extractor, Reference]:
    """The extractor, on a device, and the features of the reference, both trained or remembered.

    Args:
        weights: a file with the weights of a published extractor.
        cache: where to remember; energydiff's cache folder by default.
    """
    extractor = open_extractor(
        data.extractor or default_extractor(data.spec.labels, weights),
        train=splits.train,
        held_out=splits.held_out,
        weights=weights,
        cache=cache,
    ).to(device)
    return extractor, reference_features(data.reference_of(splits), extractor, cache=cache)
