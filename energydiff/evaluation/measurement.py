"""What comparable results share: data, extractor, reference, and how samples are drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from energydiff.data import Splits
from energydiff.errors import UserError
from energydiff.evaluation.data import EvaluationData
from energydiff.evaluation.drawing import Drawing
from energydiff.evaluation.extractors import Extractor, open_extractor
from energydiff.evaluation.features import Draws
from energydiff.evaluation.frechet import frechet_distance, gaussian_statistics
from energydiff.evaluation.images import QUANTISATION, image_batches, open_images, spread
from energydiff.evaluation.quality import measure_quality, require_measurable
from energydiff.evaluation.records import Floor, Provenance, Result
from energydiff.evaluation.reference import Reference, reference_features, versions
from energydiff.saving import LAST_CHECKPOINT, SavedModel, open_model


@dataclass(frozen=True)
class Blocks:
    """n samples in disjoint blocks of seeds of equal size."""

    samples: int
    blocks: int

    def __post_init__(self) -> None:
        if self.blocks < 2 or self.samples < 2 * self.blocks or self.samples % self.blocks:
            raise UserError(
                f"-n {self.samples} samples do not fall into --blocks {self.blocks} equal blocks:"
                " give two blocks or more, of two samples or more, that divide n."
            )

    @property
    def size(self) -> int:
        """Samples in a block."""
        return self.samples // self.blocks


@dataclass(frozen=True)
class Side:
    """The models of one arm, their training seeds aside the same, and their samples.

    Attributes:
        paths, models, draws: one each per model.
    """

    paths: list[Path]
    models: list[SavedModel]
    draws: list[Draws]

    @classmethod
    def open(cls, paths: Sequence[Path], extractor: Extractor, how: Drawing, store: Path) -> "Side":
        """Models from run folders, checkpoints or exports."""
        models = [open_model(path) for path in paths]
        for path, model in zip(paths, models, strict=True):
            if getattr(model.denoiser, "noise_blind", False):
                raise UserError(
                    f"{path} is a noise-blind energy; quality is measured on samplers that go down"
                    " noise levels: sample it with sample.py and give the folder of its images."
                )
        draws = [Draws(model, extractor, how, store) for model in models]
        return cls(list(paths), models, draws)

    def require_distinct(self) -> None:
        """``UserError`` if a model is given twice: no training seed counts as two."""
        seen: dict[str, Path] = {}
        for path, draws in zip(self.paths, self.draws, strict=True):
            if draws.digest in seen:
                raise UserError(
                    f"{seen[draws.digest]} and {path} are one model: give each training seed once."
                )
            seen[draws.digest] = path

    @property
    def first(self) -> SavedModel:
        """What cost, certificate and likelihood are measured on."""
        return self.models[0]

    @property
    def name(self) -> str:
        """For tables: the first model's folder."""
        return self.paths[0].resolve().name


@dataclass(frozen=True)
class Measurement:
    """All that two results must share to be comparable, opened and ready.

    Attributes:
        data, splits: the data as named, and opened. ``reference`` its features.
        blocks: n and its blocks of seeds. ``how`` they are drawn.
        store: where features are kept.
    """

    data: EvaluationData
    splits: Splits
    extractor: Extractor
    reference: Reference
    blocks: Blocks
    how: Drawing
    store: Path

    @classmethod
    def open(
        cls,
        data: EvaluationData,
        samples: int,
        blocks: int,
        how: Drawing,
        store: Path,
        weights: Path | None = None,
    ) -> "Measurement":
        """Open data, extractor and reference, and refuse what cannot be measured."""
        n = Blocks(samples, blocks)
        splits = data.open()
        source = data.reference_of(splits)
        data.require_enough(samples, source)
        require_measurable(samples, len(source))
        extractor = open_extractor(
            data.extractor_name,
            train=splits.train,
            held_out=splits.held_out,
            weights=weights,
            cache=store,
        )
        reference = reference_features(source, extractor.to(how.device), cache=store)
        return cls(data, splits, extractor, reference, n, how, store)

    def side(self, paths: Sequence[Path]) -> Side:
        """The models at ``paths``, which must make images like the reference's."""
        side = Side.open(paths, self.extractor, self.how, self.store)
        for model in side.models:
            self.reference.require_shape(tuple(model.denoiser.shape))
        return side

    def provenance(self, model: SavedModel | None) -> Provenance:
        """What every number depends on beside the model; ``None`` for images of a folder."""
        return Provenance(
            data=self.data.describe(),
            reference=self.reference.digest,
            reference_count=self.reference.count,
            extractor=self.extractor.name,
            extractor_hash=self.extractor.digest,
            resize=self.extractor.resize,
            quantisation=QUANTISATION,
            samples=self.blocks.samples,
            blocks=self.blocks.blocks,
            seed=self.how.seed,
            sampler=self.how.sampler if model else "none",
            steps=self.how.steps if model else 0,
            sigma_min=model.sigma_min if model else 0.0,
            sigma_max=model.sigma_max if model else 0.0,
            weights="exponential moving average" if model else "images of a folder",
            versions=versions(),
        )

    def measure(self, path: Path) -> Result:
        """Quality of a model's samples, or of the images in a folder."""
        if is_model(path):
            side = self.side([path])
            found, model = side.draws[0].features(0, self.blocks.samples), side.first
        else:
            found, model = self._images(path), None
        return Result(
            str(path),
            measure_quality(
                self.extractor.features(found),
                self.extractor.logits(found),
                self.reference.features,
            ),
            self.block_distances(found),
            self.floor(found),
            self.provenance(model),
        )

    def _images(self, folder: Path) -> Tensor:
        """Features of the first n images of a folder, by name."""
        source = open_images(folder, self.reference.shape[0])
        self.reference.require_shape(tuple(source.shape))
        n = self.blocks.samples
        if len(source) < n:
            raise UserError(f"{folder} has {len(source):,} images, fewer than -n {n:,}: lower -n.")
        part = source.select(np.arange(n))
        batches = image_batches(part, f"Features of {folder}")
        extractor = self.extractor.to(self.how.device)  # after sampling Lightning left it elsewhere
        return torch.cat([extractor(images).cpu() for images, _ in batches])

    def floor(self, features: Tensor) -> Floor:
        """Held-out images beside as many samples, from their features (n, f)."""
        other = self.splits.held_out if self.data.reference == "train" else self.splits.train
        part = spread(other, len(features))
        count = len(part)
        extractor = self.extractor.to(self.how.device)
        real = reference_features(part, extractor, cache=self.store).features
        samples = self.extractor.features(features[:count])
        return Floor(count, self.distance(real), self.distance(samples))

    def distance(self, features: Tensor) -> float:
        """Fréchet distance of features (n, f) to the reference."""
        mine = gaussian_statistics(features)
        return frechet_distance(*mine, self.reference.mean, self.reference.cov)

    def block_distances(self, features: Tensor) -> list[float]:
        """The same of each block of features (n, f), or of features with logits beside them."""
        return [
            self.distance(part)
            for part in self.extractor.features(features).split(self.blocks.size)
        ]


def is_model(path: Path) -> bool:
    """Whether there is a model at a path, and not a folder of images."""
    return (
        not path.is_dir()  # whatever is wrong with it, opening it says so
        or (path / "model.yaml").is_file()
        or (path / LAST_CHECKPOINT).is_file()
    )
