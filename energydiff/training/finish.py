"""What happens when training ends: gauge or resting norm are chosen and the model exported.

A run can be killed after its last image and before its export is written: see
:meth:`CalibrateAndExport.complete`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info

from energydiff.denoisers import BlindEnergy, EnergyDenoiser
from energydiff.diffusion import anchor_gauge, calibrate_gauge
from energydiff.energies import Denoiser
from energydiff.errors import UserError
from energydiff.progress import progress
from energydiff.sampling import resting_norm
from energydiff.saving import (
    LAST_CHECKPOINT,
    SavedModel,
    open_model,
    read_checkpoint,
    save_model,
    write_checkpoint,
)
from energydiff.training.data import DiffusionData
from energydiff.training.ema import EMA
from energydiff.training.module import DiffusionModule


def calibrate(saved: SavedModel, evaluations: int, images: int = 4_096) -> None:
    """Fix the gauge of a saved model anew, in place, on the data its run was trained on.

    Raises:
        UserError: the model has no gauge, or no run behind it says what its data was.
    """
    if not isinstance(saved.denoiser, EnergyDenoiser):
        raise UserError(f"{type(saved.denoiser).__name__} has no gauge to calibrate.")
    data = DiffusionData.of_run(saved.config)
    _calibrate(saved.denoiser, data, evaluations, images)


def _calibrate(
    energy: EnergyDenoiser,
    data: DiffusionData,
    evaluations: int,
    images: int,
) -> None:
    clean = data.train_source.clean(images).to(next(energy.parameters()).device)
    with progress("Calibrating the gauge", evaluations) as tell:
        sigmas = energy.require_noise()
        calibrate_gauge(energy, clean, *sigmas, evaluations=evaluations, on_batch=tell)


def choose_resting_norm(energy: BlindEnergy, data: DiffusionData, images: int = 4_096) -> None:
    """Set ``energy.resting_norm`` to the median of ‖∇H‖ over held-out images, in place.

    A sample whose gradient is as short as a real image's has arrived. Held-out images are what the
    energy says of real ones it has not seen, and no measure of quality enters the choice. Where
    none are held out, training images take their place.
    """
    real = data.watched_source.clean(images).to(energy.resting_norm.device)
    energy.resting_norm.fill_(resting_norm(energy, real))


class CalibrateAndExport(Callback):
    """At the end of fit: calibrates the averaged model's gauge, or chooses the resting norm of a
    noise-blind energy, saves it and writes ``export/``.

    Args:
        evaluations: noise derivatives to average for the gauge; 0 leaves the gauge as it is. An
            objective that fixes it needs none: only its constant is set, from the density at σ_max.
        images: images that gauge or resting norm are taken on; fewer where so many would take more
            than half a GiB.
    """

    def __init__(self, evaluations: int = 16_384, images: int = 4_096) -> None:
        self.evaluations, self.images = evaluations, images

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, DiffusionModule)
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, DiffusionData)
        with EMA.of(trainer, pl_module) as averaged:
            self._settle(averaged.denoiser, data, pl_module)
            # Neither changes ∇E: the weights in training are the same model with these buffers.
            pl_module.denoiser.load_state_dict(_buffers(averaged.denoiser), strict=False)
        run = Path(trainer.default_root_dir)
        trainer.save_checkpoint(run / LAST_CHECKPOINT, weights_only=False)
        with EMA.of(trainer, pl_module) as averaged:
            if trainer.is_global_zero:
                save_model(averaged.saved_model(), run / "export")
                rank_zero_info(f"Saved {run / LAST_CHECKPOINT} and {run / 'export'}.")

    def complete(self, run: Path, module: DiffusionModule, device: torch.device) -> None:
        """The same from the last checkpoint of a run folder, for a run killed before this point."""
        file = run / LAST_CHECKPOINT
        saved = open_model(file)
        saved.denoiser.to(device)
        self._settle(saved.denoiser, DiffusionData.of_run(saved.config), module)
        buffers = _buffers(saved.denoiser.cpu())
        checkpoint = read_checkpoint(file)
        for weights in ("state_dict", "current_model_state"):  # averaged, and as trained
            checkpoint[weights] |= {f"denoiser.{k}": v for k, v in buffers.items()}
        write_checkpoint(checkpoint, file)
        save_model(saved, run / "export")
        print(f"Saved {file} and {run / 'export'}.")

    def _settle(self, denoiser: Denoiser, data: DiffusionData, module: DiffusionModule) -> None:
        """Set what is not learned, in place."""
        if isinstance(denoiser, BlindEnergy):
            was_training = denoiser.training
            choose_resting_norm(denoiser.eval(), data, self.images)
            denoiser.train(was_training)
        elif isinstance(denoiser, EnergyDenoiser) and self.evaluations:
            if module.objective.fixes_gauge:
                clean = data.train_source.clean(self.images)
                clean = clean.to(next(denoiser.parameters()).device)
                anchor_gauge(denoiser, clean, denoiser.require_noise().sigma_max)
            else:
                _calibrate(denoiser, data, self.evaluations, self.images)


def _buffers(denoiser: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What is saved of a model beside its parameters."""
    learned = dict(denoiser.named_parameters())
    return {name: t for name, t in denoiser.state_dict().items() if name not in learned}


def is_exported(run: Path, config: Mapping[str, Any]) -> bool:
    """Whether the run folder's export was written at the end of the run of this configuration.

    It may be missing, or be left from before ``model.total_images`` was raised.
    """
    try:
        return bool(open_model(run / "export").config == config)
    except UserError:
        return False
