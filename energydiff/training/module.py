"""The LightningModule: a thin shell around a denoiser, its objective and its optimizer."""

from typing import Any, Literal

import torch
from torch import Tensor

from energydiff.data import Normalization
from energydiff.denoisers import build_denoiser, network_of
from energydiff.diffusion import (
    DenoisingScoreMatching,
    NoiseLevels,
    NoisyBatch,
    Objective,
    Teacher,
)
from energydiff.energies import Denoiser, NoiseRange
from energydiff.errors import UserError
from energydiff.potentials import Network, Wrapped, require_smooth
from energydiff.registry import is_ours
from energydiff.saving import SavedModel, describe, require_loadable
from energydiff.training.stable_targets import exact_mean
from energydiff.training.stream_module import StreamModule


class DiffusionModule(StreamModule):
    """Trains an energy, or its unconstrained baseline.

    Args:
        backbone: the network; its shape and classes come from the data.
        sigma_data: σ_d, from the data.
        normalization: raw values to model coordinates, from the data.
        parametrization: ``inner_product`` or ``sum`` (energies of a vector backbone), ``scalar``
            (a network that is an energy by itself), ``convex`` (InputConvex), ``natural``
            (NaturalConvex), ``unconstrained``, the noise-blind ``dot``, ``squared_norm`` and
            ``coercive``, or the import path of a ``Potential`` of your own.
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
        compile: run an energy and its derivatives, or the baseline, as one compiled function
            (minutes once, faster steps).
        teacher_share: of ``total_images``, how many of the first are learned from a teacher, where
            there is one, before the data themselves are (docs/distil.md).
        stable_targets: learn of the data E[x0 | x], exact over all training samples, and not its
            draw x0: the same optimum with less noise in every gradient (Xu et al. 2023). For data
            of which there are few.

    Attributes:
        teacher: what it learns from before the data, if anything; a held-out loss is always that
            of the data.
        data_mean: the exact posterior mean of the training data, under ``stable_targets``.
    """

    teacher: Teacher | None = None
    data_mean: Teacher | None = None

    def __init__(
        self,
        backbone: Network,
        sigma_data: float,
        normalization: Normalization,
        parametrization: str = "inner_product",
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
        teacher_share: float = 0.5,
        stable_targets: bool = False,
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
        if not 0 <= teacher_share <= 1:
            raise UserError(f"model.teacher_share = {teacher_share} must lie in [0, 1].")
        try:
            levels = NoiseRange(sigma_min, sigma_max)
        except UserError as error:
            raise UserError(f"model.{error}") from error
        self.denoiser = build_denoiser(backbone, sigma_data, parametrization, compile, levels)
        self.normalization, self.classes = normalization, tuple(classes)
        self.objective = objective
        objective.prepare(self.denoiser)
        self.noise = noise or objective.noise
        self.sigma_data, self.label_dropout = sigma_data, label_dropout
        self.teacher_share, self.stable_targets = teacher_share, stable_targets

    def setup(self, stage: str) -> None:
        """``UserError`` before hours of training for what could not be trained or loaded later."""
        if stage != "fit":
            return
        require_loadable(self.saved_model())
        network = network_of(self.denoiser)
        foreign = isinstance(network, Wrapped) or not is_ours(type(network))
        if network is not None and foreign and self.denoiser.energy is not None:
            require_smooth(network)
        self.data_mean = None
        if self.stable_targets:
            self.learn_mean_of(self.trainer.datamodule)  # type: ignore[attr-defined]

    def learn_mean_of(self, data: object) -> None:
        """Takes the exact mean of the data to train on as what is learned of them.

        Raises:
            UserError: see :func:`~energydiff.training.stable_targets.exact_mean`; or the objective
                learns from no mean.
        """
        self.objective.require_mean()
        self.data_mean = exact_mean(data)

    def start_from(self, other: Denoiser, name: str) -> None:
        """Takes the weights of another model of the same network.

        Args:
            other: the model.
            name: what the error calls it.

        Raises:
            UserError: a tensor is missing, unknown or of another shape.
        """
        mine, theirs = self.denoiser.state_dict(), other.state_dict()
        differ = [
            key
            for key in {**theirs, **mine}
            if key not in mine or key not in theirs or mine[key].shape != theirs[key].shape
        ]
        if differ:
            raise UserError(
                f"--init {name} is of another network than the one configured ({len(differ)}"
                f" tensors missing, unknown or of another shape, first {differ[0]}): configure the"
                " same parametrization, backbone and data shape."
            )
        self.denoiser.load_state_dict(theirs)

    def levels(self, batch: dict[str, Tensor]) -> Tensor:
        return self.noise.quantile(batch["uniform"][:, 0])

    def loss_parts(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        label = None
        if self.denoiser.num_classes:
            hidden = batch["uniform"][:, 1] < self.label_dropout
            label = torch.where(hidden, -1, batch["label"])
        noisy = NoisyBatch(
            self.normalization.encode(batch["raw"]),
            self.levels(batch),
            batch["noise"],
            self.sigma_data,
            label,
        )
        teacher = self.teacher if self._in_teachers_share() else None
        if self.training and (known := teacher or self.data_mean):
            noisy = known.inform(noisy)
        return self.objective(self.denoiser, noisy)

    def _in_teachers_share(self) -> bool:
        return self.images_after(self.steps) < self.teacher_share * self.total_images

    def title(self) -> str:
        network = network_of(self.denoiser)
        kind = "Energy" if self.denoiser.energy is not None else "Baseline"
        return f"{kind} over {type(network).__name__}"

    def saved_model(self) -> SavedModel:
        """What an export or a checkpoint keeps of the model."""
        return SavedModel(
            self.denoiser,
            self.normalization,
            self.classes,
            self.config,
        )

    def describe(self) -> dict[str, Any]:
        return describe(self.saved_model())
