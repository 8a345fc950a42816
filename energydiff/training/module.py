"""The LightningModule: a thin shell around a denoiser, its objective and its optimizer."""

import math
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor
from torchmetrics import MeanMetric

from energydiff.data import Normalization
from energydiff.denoisers import Parametrization, build_denoiser
from energydiff.diffusion import DenoisingScoreMatching, LogNormal, NoiseLevels, Objective
from energydiff.errors import UserError
from energydiff.potentials import Network
from energydiff.saving import CHECKPOINT_KEY, SavedModel, describe


class DiffusionModule(pl.LightningModule):
    """Trains an energy, or its unconstrained baseline.

    Args:
        backbone: the network; its shape and classes come from the data.
        sigma_data: σ_d, from the data.
        normalization: raw values to model coordinates, from the data.
        parametrization: ``inner_product`` or ``sum`` (energies of a vector backbone), ``scalar``
            (a network that is an energy by itself), or ``unconstrained``.
        objective: what is minimised; denoising score matching by default.
        noise: distribution of σ in training.
        sigma_min, sigma_max: the noise levels to sample and calibrate between.
        label_dropout: share of labels hidden, so that the model also learns without one.
        learning_rate, betas, weight_decay: of AdamW.
        schedule: ``cosine`` falls to 0 at ``total_images``; ``constant`` stays.
        warmup_images: the learning rate rises linearly over these.
        total_images: length of training.
        batch_size: images per optimizer step, from the data.
        classes: class names, from the data.
        compile: compile energy and gradient as one function (minutes once, faster steps).
    """

    def __init__(
        self,
        backbone: Network,
        sigma_data: float,
        normalization: Normalization,
        parametrization: Parametrization = "inner_product",
        objective: Objective | None = None,
        noise: NoiseLevels | None = None,
        sigma_min: float = 0.02,
        sigma_max: float = 80.0,
        label_dropout: float = 0.1,
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 1e-4,
        schedule: Literal["cosine", "constant"] = "cosine",
        warmup_images: int = 3_200,
        total_images: int = 1_000_000,
        batch_size: int = 64,
        classes: tuple[str, ...] = (),
        compile: bool = False,
    ) -> None:
        super().__init__()
        if total_images < 1 or warmup_images < 0 or not 0 <= label_dropout <= 1:
            raise UserError(
                f"model.total_images = {total_images} must be at least 1, model.warmup_images ="
                f" {warmup_images} at least 0 and model.label_dropout = {label_dropout} in [0, 1]."
            )
        if not 0 < sigma_min < sigma_max:
            raise UserError(
                f"model.sigma_min = {sigma_min} and model.sigma_max = {sigma_max} must obey"
                " 0 < sigma_min < sigma_max."
            )
        self.denoiser = build_denoiser(backbone, sigma_data, parametrization, compile)
        self.normalization, self.classes = normalization, tuple(classes)
        self.objective = objective or DenoisingScoreMatching()
        if self.objective.fixes_gauge:
            self.denoiser.require_energy()
        self.noise = noise or LogNormal()
        self.sigma_data, self.sigma_min, self.sigma_max = sigma_data, sigma_min, sigma_max
        self.label_dropout = label_dropout
        self.learning_rate, self.betas, self.weight_decay = learning_rate, betas, weight_decay
        self.schedule, self.warmup_images = schedule, warmup_images
        self.total_images, self.batch_size = total_images, batch_size
        parts = self.objective.parts if len(self.objective.parts) > 1 else ()
        self.held_out = torch.nn.ModuleDict({name: MeanMetric() for name in ("loss", *parts)})
        self.losses: Tensor | None = None  # per image of the last batch, for the non-finite guard
        self.config: dict[str, Any] = {}

    def loss_parts(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The objective's parts on a batch of the stream, each (B,)."""
        label = None
        if self.denoiser.num_classes:
            hidden = batch["uniform"][:, 1] < self.label_dropout
            label = torch.where(hidden, -1, batch["label"])
        return self.objective(
            self.denoiser,
            self.normalization.encode(batch["raw"]),
            self.noise.quantile(batch["uniform"][:, 0]),
            batch["noise"],
            self.sigma_data,
            label,
        )

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        parts = self.loss_parts(batch)
        losses = _total(parts)
        self.losses = losses.detach()
        loss = losses.mean()
        self.log("train/loss", loss, prog_bar=True)
        if len(parts) > 1:
            self.log_dict({f"train/{name}": part.detach().mean() for name, part in parts.items()})
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._held_out("val", batch)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._held_out("test", batch)

    def _held_out(self, stage: str, batch: dict[str, Tensor]) -> None:
        parts = self.loss_parts(batch)
        values = {"loss": _total(parts)} | parts
        for name, metric in self.held_out.items():
            assert isinstance(metric, MeanMetric)
            metric.update(values[name])
            self.log(f"{stage}/{name}", metric, prog_bar=name == "loss", on_epoch=True)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.parameters(),
            lr=self.learning_rate,
            betas=self.betas,
            weight_decay=self.weight_decay,
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._learning_rate_factor)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    def _learning_rate_factor(self, step: int) -> float:
        images = step * self.batch_size
        warmup = min(1.0, (images + self.batch_size) / max(self.warmup_images, 1))
        if self.schedule == "constant":
            return warmup
        return warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, images / self.total_images)))

    def saved_model(self) -> SavedModel:
        """What an export or a checkpoint keeps of the model."""
        return SavedModel(
            self.denoiser,
            self.normalization,
            self.sigma_min,
            self.sigma_max,
            self.classes,
            self.config,
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[CHECKPOINT_KEY] = describe(self.saved_model())


def _total(parts: dict[str, Tensor]) -> Tensor:
    """The loss per image, (B,)."""
    return torch.stack(list(parts.values())).sum(0)
