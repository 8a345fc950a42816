"""Watches the quality of the averaged model's samples while it trains."""

import math
from dataclasses import asdict
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import torch

from energydiff.denoisers import BlindEnergy
from energydiff.drawing import Drawing
from energydiff.errors import UserError
from energydiff.evaluation import EvaluationData, Extractor, Reference, measure_quality
from energydiff.evaluation.candidate import Quantised
from energydiff.evaluation.measurement import open_measurable, open_reference
from energydiff.evaluation.settings import named_sampler
from energydiff.ranks import from_first_rank
from energydiff.training.module import DiffusionModule
from energydiff.training.periodic import PeriodicCallback, gathered


class QualityMonitor(PeriodicCallback):
    """Every n images: what ``energydiff evaluate fid`` would say of the averaged model.

    The same samples (numbers 0 to n − 1 of seed 0), features and reference, so that the curve ends
    where the evaluation begins. Ranks share the samples; the first one reads the reference, and
    measures. Logged under ``quality/``: ``frechet``,
    ``frechet_infinity``, ``kid``, ``precision``, ``recall`` and, of an extractor with classes,
    ``inception_score``. The extractor lives here, not in the module: it is neither averaged nor
    saved. What is wrong with it or the data is said before the first step. If a sample is not
    finite, ``quality/frechet`` is NaN and the others are left out.

    Add it in a configuration:

        trainer:
          callbacks:
            - class_path: energydiff.training.QualityMonitor
              init_args: {every_images: 500000, samples: 5000}

    Args:
        every_images: how often; rounded to whole optimizer steps.
        samples: n; quality at different n does not compare.
        sampler, steps: on Karras' grid from σ_max to σ_min, then a final denoising.
        batch_size: samples at a time on each device.
        data: what to measure against; without a source, the data of the run.
        weights: local file with the weights of a published extractor.
    """

    def __init__(
        self,
        every_images: int = 500_000,
        samples: int = 5_000,
        sampler: str = "heun",
        steps: int = 18,
        batch_size: int = 64,
        data: EvaluationData | None = None,
        weights: Path | None = None,
    ) -> None:
        super().__init__(every_images)
        self.samples, self.data, self.weights = samples, data, weights
        self.sampler, self.steps = sampler, steps
        self.how = Drawing(batch_size=batch_size)
        self._extractor: Extractor | None = None
        self._reference: Reference | None = None  # of the first rank

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, DiffusionModule)
        if isinstance(pl_module.denoiser, BlindEnergy):
            raise UserError(
                "QualityMonitor samples down noise levels, which a noise-blind energy has not:"
                " leave it out of trainer.callbacks."
            )
        with torch.random.fork_rng(devices=[]):  # data loaders draw from the generator of training
            self._extractor = from_first_rank(partial(self._open, trainer, pl_module))
        self._extractor.to(pl_module.device)

    @torch.no_grad()
    def observe(self, trainer: pl.Trainer, module: DiffusionModule) -> dict[str, float]:
        denoiser, extractor = module.denoiser, self._extractor
        assert extractor is not None
        extract = Quantised(extractor, module.normalization, degraded=False)
        sampler = named_sampler(self.sampler, self.steps, *module.denoiser.require_noise())
        was_training = denoiser.training
        denoiser.eval()
        mine = range(trainer.global_rank, self.samples, trainer.world_size)
        found = [torch.empty(0, extractor.dim + extractor.classes)]  # of a rank without samples
        for numbers in self.how.batches(mine):
            drawn = self.how.draw(denoiser, sampler, numbers, trace=False)
            found.append(extract(drawn.samples).cpu())
        denoiser.train(was_training)
        everything = gathered(torch.cat(found), self.samples, trainer)
        if self._reference is None:
            return {}
        values = {"quality/frechet": math.nan}
        if bool(everything.isfinite().all()):
            quality = measure_quality(
                extractor.features(everything),
                extractor.logits(everything),
                self._reference.features,
            )
            values = {f"quality/{n}": v for n, v in asdict(quality).items() if v is not None}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=module.images_after(trainer.global_step))
        return values

    def _open(self, trainer: pl.Trainer, module: DiffusionModule) -> Extractor:
        """The extractor, on the CPU; the reference stays here, where it is measured against."""
        asked = self.data or EvaluationData()
        data = asked.within(module.config, Path(trainer.default_root_dir))
        splits = open_measurable(data, self.samples)
        extractor, self._reference = open_reference(
            data, splits, module.device, self.weights, cache=None
        )
        shape = tuple(module.denoiser.shape)
        self._reference.require_shape(module.normalization.picture_shape(shape) or shape)
        return extractor.cpu()
