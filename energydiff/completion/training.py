"""Masked completion as a training run: its module, its command line and what is left of it."""

from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from energydiff.completion.network import MaskedCompletion
from energydiff.data import Normalization
from energydiff.errors import UserError
from energydiff.saving import CHECKPOINT_KEY, LAST_CHECKPOINT, read_checkpoint
from energydiff.training.stream_module import StreamModule

FORMAT = "energydiff-completion-1"


PARTS = ("squared_error",)


class CompletionModule(StreamModule):
    """Trains a :class:`MaskedCompletion` by mean squared error on hidden pixels.

    Args:
        network: the model; its shape comes from the data.
        normalization: raw values to model coordinates, from the data.
        hidden_share: shares of patches to hide, uniform between these two.
        learning_rate, betas, weight_decay: of AdamW.
        schedule: ``cosine`` falls to 0 at ``total_images``; ``constant`` stays.
        warmup_images: the learning rate rises linearly over these.
        total_images: length of training.
        batch_size: images per optimizer step, from the data.
    """

    def __init__(
        self,
        network: MaskedCompletion,
        normalization: Normalization,
        hidden_share: tuple[float, float] = (0.1, 0.9),
        learning_rate: float = 5e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 1e-2,
        schedule: Literal["cosine", "constant"] = "cosine",
        warmup_images: int = 3_200,
        total_images: int = 300_000,
        batch_size: int = 64,
    ) -> None:
        super().__init__(
            learning_rate,
            betas,
            weight_decay,
            schedule,
            warmup_images,
            total_images,
            batch_size,
            PARTS,
        )
        low, high = hidden_share
        if not 0 <= low <= high <= 1:
            raise UserError(f"model.hidden_share {low}, {high} must rise within [0, 1].")
        if normalization.decoder is not None:
            raise UserError(
                "complete fills in pixels, and data.source.decoder makes images of latents: train"
                " on images instead."
            )
        self.network, self.normalization, self.hidden_share = network, normalization, (low, high)

    def levels(self, batch: dict[str, Tensor]) -> Tensor:
        """The share of its patches that is hidden."""
        low, high = self.hidden_share
        return low + (high - low) * batch["uniform"][:, 0]

    def loss_parts(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        hidden = self.network.hide(batch["noise"], self.levels(batch))
        return {PARTS[0]: self.network.loss(self.normalization.encode(batch["raw"]), hidden)}

    def title(self) -> str:
        return type(self.network).__name__

    def describe(self) -> dict[str, Any]:
        arguments = self.network.config | {"shape": list(self.network.shape)}
        return {
            "format": FORMAT,
            "model": {"class": type(self.network).__name__, **arguments},
            "config": self.config,
        }

    def on_train_end(self) -> None:
        if not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            run = Path(self.trainer.default_root_dir)
            self.trainer.save_checkpoint(run / LAST_CHECKPOINT, weights_only=False)


def open_completion(run: str | Path) -> tuple[MaskedCompletion, dict[str, Any]]:
    """The network of a run folder (averaged weights, frozen) and the run's configuration.

    Raises:
        UserError: there is no such run, or it is damaged or of another kind of model.
    """
    file = Path(run) / LAST_CHECKPOINT
    if not file.is_file():
        raise UserError(
            f"{file} does not exist: give the folder of a run of energydiff complete fit."
        )
    checkpoint = read_checkpoint(file)
    description = checkpoint[CHECKPOINT_KEY]
    if description.get("format") != FORMAT:
        raise UserError(f"{file} is not a completion model: its format should be {FORMAT!r}.")
    arguments = {name: value for name, value in description["model"].items() if name != "class"}
    network = MaskedCompletion(**arguments)
    prefix = "network."
    network.load_state_dict(
        {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if prefix in k}
    )
    return network.eval().requires_grad_(False), description["config"]
