"""Watches a model begin to memorise while it trains."""

from functools import partial

import lightning.pytorch as pl
import torch
from torch import Tensor

from energydiff.data import Source
from energydiff.denoisers import BlindEnergy
from energydiff.drawing import Drawing
from energydiff.energies import Denoiser
from energydiff.errors import UserError
from energydiff.evaluation.settings import named_sampler
from energydiff.likelihood import held_out_loss
from energydiff.memorisation.phases import Phase, Rule, sort_samples, without_copies
from energydiff.ranks import from_first_rank
from energydiff.sampling import geometric_sigmas
from energydiff.training.data import DiffusionData
from energydiff.training.module import DiffusionModule
from energydiff.training.periodic import Watcher, gathered

LEVELS = 9  # of noise that losses are means over


class MemorisationMonitor(Watcher):
    """At set image counts: which samples of the averaged model are copies of training images.

    The same samples each time (numbers 0 to n − 1 of seed 0), sorted by the rule of
    docs/memorisation.md. Logged under ``memorisation/``: ``memorised``, ``spurious`` and
    ``generalised``, shares; ``copies``, share with d₁/d₂ < 1/3; ``train_loss`` and
    ``held_out_loss``, the denoising losses of as many images of either at the same noise levels,
    which part when a model begins to memorise.

        trainer:
          callbacks:
            - class_path: energydiff.training.MemorisationMonitor
              init_args: {at_images: [10000, 20000, 40000, 80000]}

    Args:
        at_images: when; rounded up to whole optimizer steps.
        samples: n.
        memorised, spurious: the thresholds δ_m and δ_s; by default those that one in a hundred
            held-out images is below, beside the images trained on.
        sampler, steps: on Karras' grid from σ_max to σ_min, then a final denoising.
        batch_size: samples at a time on each device.
    """

    def __init__(
        self,
        at_images: list[int],
        samples: int = 256,
        memorised: float | None = None,
        spurious: float | None = None,
        sampler: str = "heun",
        steps: int = 18,
        batch_size: int = 256,
    ) -> None:
        if min(at_images, default=0) < 1 or samples < 2:
            raise UserError(
                "MemorisationMonitor needs image counts of at least 1 (at_images) and two samples"
                f" or more; got {at_images} and {samples}."
            )
        if (memorised is None) != (spurious is None):
            raise UserError("MemorisationMonitor takes both thresholds or none.")
        self.at_images, self.samples = at_images, samples
        self.memorised, self.spurious = memorised, spurious
        self.sampler, self.steps, self.how = sampler, steps, Drawing(batch_size=batch_size)
        self._rule: Rule | None = None
        self._train: Source | None = None  # of the first rank

    def due(self, step: int, batch_size: int) -> bool:
        return step in {-(-images // batch_size) for images in self.at_images}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, DiffusionModule)
        if isinstance(pl_module.denoiser, BlindEnergy):
            raise UserError(
                "MemorisationMonitor samples down noise levels, which a noise-blind energy has not:"
                " leave it out of trainer.callbacks."
            )
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, DiffusionData)
        if not len(data.held_out_source):
            raise UserError(
                "MemorisationMonitor needs held-out images, and data.source.held_out is 0."
            )
        with torch.random.fork_rng(devices=[]):
            self._rule = from_first_rank(partial(self._calibrated, data))

    @torch.no_grad()
    def observe(self, trainer: pl.Trainer, module: DiffusionModule) -> dict[str, float]:
        denoiser, data = module.denoiser, trainer.datamodule  # type: ignore[attr-defined]
        was_training = denoiser.training
        denoiser.eval()
        sampler = named_sampler(self.sampler, self.steps, *denoiser.require_noise())
        mine = range(trainer.global_rank, self.samples, trainer.world_size)
        drawn = [
            self.how.draw(denoiser, sampler, numbers, trace=False).samples.cpu()
            for numbers in self.how.batches(mine)
        ]
        found = torch.cat(drawn) if drawn else torch.empty(0, *denoiser.shape)
        samples = gathered(found, self.samples, trainer)
        values = self._measured(denoiser, data, samples) if trainer.is_global_zero else {}
        denoiser.train(was_training)
        for logger in trainer.loggers:
            logger.log_metrics(values, step=module.images_after(trainer.global_step))
        return values

    def _calibrated(self, data: DiffusionData) -> Rule:
        """The rule; what it is applied to stays on the first rank."""
        self._train = without_copies(data.train_source)
        if self.memorised is not None and self.spurious is not None:
            return Rule(self.memorised, self.spurious, self.samples)
        return Rule.calibrated(data.held_out_source.clean(), self._train, block=self.samples)

    def _measured(
        self, denoiser: Denoiser, data: DiffusionData, samples: Tensor
    ) -> dict[str, float]:
        assert self._rule is not None and self._train is not None
        found = sort_samples(samples, self._train, self._rule)
        levels = geometric_sigmas(LEVELS - 1, *denoiser.require_noise())
        losses = {
            f"{name}_loss": held_out_loss(
                denoiser,
                source.spread(self.samples),
                levels,
                data.sigma_data,
            )
            for name, source in (("train", data.train_source), ("held_out", data.held_out_source))
        }
        shares = {phase.name.lower(): found.share(phase) for phase in Phase}
        values = shares | {"copies": found.copies} | losses
        return {f"memorisation/{name}": value for name, value in values.items()}
