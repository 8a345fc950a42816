"""The LightningModule: a thin shell around a denoiser, its objective and its optimizer."""

from typing import Any, Literal

import torch
from torch import Tensor

from energydiff.data import Normalization
from energydiff.denoisers import Parametrization, build_denoiser
from energydiff.diffusion import DenoisingScoreMatching, NoiseLevels, NoisyBatch, Objective
from energydiff.errors import UserError
from energydiff.potentials import Network
from energydiff.saving import SavedModel, describe
from energydiff.training.stream_module import StreamModule


class DiffusionModule(StreamModule):
    """Trains an energy, or its unconstrained baseline.

    Args:
        backbone: the network; its shape and classes come from the data.
        sigma_data: σ_d, from the data.
        normalization: raw values to model coordinates, from the data.
        parametrization: ``inner_product`` or ``sum`` (energies of a vector backbone), ``scalar``
            (a network that is an energy by itself), ``convex`` (InputConvex), ``unconstrained``, or
            the noise-blind ``dot``, ``squared_norm`` and ``coercive``.
        objective: what is minimised; denoising score matching by default.
        noise: distribution of σ in training; the objective's own by default.
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
        objective = objective or DenoisingScoreMatching()
        super().__init__(
            learning_rate,
            betas,
            weight_decay,
            schedule,
            warmup_images,
            total_images,
            batch_size,
            objective.parts,
        )
        if not 0 <= label_dropout <= 1:
            raise UserError(f"model.label_dropout = {label_dropout} must lie in [0, 1].")
        if not 0 < sigma_min < sigma_max:
            raise UserError(
                f"model.sigma_min = {sigma_min} and model.sigma_max = {sigma_max} must obey"
                " 0 < sigma_min < sigma_max."
            )
        self.denoiser = build_denoiser(backbone, sigma_data, parametrization, compile)
        self.normalization, self.classes = normalization, tuple(classes)
        self.objective = objective
        objective.prepare(self.denoiser)
        self.noise = noise or objective.noise
        self.sigma_data, self.sigma_min, self.sigma_max = sigma_data, sigma_min, sigma_max
        self.label_dropout = label_dropout

    def loss_parts(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        label = None
        if self.denoiser.num_classes:
            hidden = batch["uniform"][:, 1] < self.label_dropout
            label = torch.where(hidden, -1, batch["label"])
        noisy = NoisyBatch(
            self.normalization.encode(batch["raw"]),
            self.noise.quantile(batch["uniform"][:, 0]),
            batch["noise"],
            self.sigma_data,
            label,
        )
        return self.objective(self.denoiser, noisy)

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

    def describe(self) -> dict[str, Any]:
        return describe(self.saved_model())
