"""Watches the Lyapunov function of the averaged model while it trains."""

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torchmetrics import MaxMetric, MeanMetric, Metric

from energydiff.data import image_grid
from energydiff.denoisers import STEP_SIZE, BlindEnergy, EnergyDenoiser
from energydiff.diffusion import calibrate_gauge
from energydiff.random import PROBE, keyed_normal
from energydiff.sampling import Armijo, Euler, Sampler, SampleResult, karras_sigmas
from energydiff.sampling.certificate import rises, rounding_tolerance
from energydiff.training.data import DiffusionData
from energydiff.training.ema import EMA
from energydiff.training.finish import choose_resting_norm
from energydiff.training.module import DiffusionModule

PROBE_LEVELS = 5


class LyapunovMonitor(Callback):
    """Every n images: a fixed-seed sample grid and the state of the Lyapunov function.

    All with averaged weights, the same probe images and the same noise each time, after a quick
    calibration of the gauge (without it the landscape part shows the gauge, not the model). Each
    rank takes its share of the probes and torchmetrics reduces, so two ranks log what one would.

    Logged under ``lyapunov/``: ``V_s<σ>`` and ``E_s<σ>``, means over noisy held-out images;
    ``gap_s<σ>``, mean E of pure noise of the data's RMS minus that of the data, at the same σ;
    ``descending``, share of probe steps along which V fell; ``worst_rise`` of V in one step;
    ``descent_rises`` and ``landscape_rises``, share of steps on which either part rose.

    Args:
        every_images: how often; rounded to whole optimizer steps.
        samples: probe trajectories, and images in the grid.
        steps: Euler steps of each trajectory; Armijo steps on a noise-blind energy.
        probe_images: held-out images on which V and E are averaged.
        calibration_evaluations: noise derivatives spent on the quick calibration.
    """

    def __init__(
        self,
        every_images: int = 200_000,
        samples: int = 64,
        steps: int = 18,
        probe_images: int = 256,
        calibration_evaluations: int = 2_048,
    ) -> None:
        self.every_images, self.samples, self.steps = every_images, samples, steps
        self.probe_images, self.calibration_evaluations = probe_images, calibration_evaluations
        self._last_step = -1

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        assert isinstance(pl_module, DiffusionModule)
        every_steps = max(1, self.every_images // pl_module.batch_size)
        step = trainer.global_step
        if step == 0 or step % every_steps or step == self._last_step:
            return
        self._last_step = step
        averaged = pl_module
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EMA):
                averaged = callback.averaged(pl_module)
        self.observe(trainer, averaged)

    @torch.no_grad()
    def observe(self, trainer: pl.Trainer, module: DiffusionModule) -> dict[str, float]:
        """Sample, measure, log; returns what was logged."""
        denoiser = module.denoiser
        was_training = denoiser.training
        denoiser.eval()
        values: dict[str, float] = {}
        data = trainer.datamodule  # type: ignore[attr-defined]
        sampler: Sampler
        if isinstance(denoiser, BlindEnergy):
            choose_resting_norm(denoiser, data, self.probe_images)
            sampler = Armijo(self.steps, STEP_SIZE, float(denoiser.resting_norm))
        else:
            sigmas = karras_sigmas(self.steps, module.sigma_min, module.sigma_max)
            sampler = Euler(sigmas, final_denoise=True)
        if isinstance(denoiser, EnergyDenoiser):
            values |= self._probe_energy(trainer, module, data)
        seeds = range(trainer.global_rank, self.samples, trainer.world_size)
        result = sampler(denoiser, seeds=seeds)
        if result.trace is not None:
            values |= _descent_metrics(result, module.device)
        self._show_samples(trainer, module, result.samples)
        denoiser.train(was_training)
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)
        return values

    def _probe_energy(
        self, trainer: pl.Trainer, module: DiffusionModule, data: DiffusionData
    ) -> dict[str, float]:
        """Mean V, mean E and the gap between noise and data at several σ."""
        energy = module.denoiser.require_energy()
        assert isinstance(energy, EnergyDenoiser)
        if self.calibration_evaluations and not module.objective.fixes_gauge:
            calibrate_gauge(
                energy,
                data.clean(data.train_source, self.calibration_evaluations).to(module.device),
                module.sigma_min,
                module.sigma_max,
                evaluations=self.calibration_evaluations,
            )
        clean = data.clean(data.held_out_source, self.probe_images).to(module.device)
        mine = range(trainer.global_rank, len(clean), trainer.world_size)
        images = clean[trainer.global_rank :: trainer.world_size]
        ends = math.log(module.sigma_min), math.log(module.sigma_max)
        metrics: dict[str, Metric] = {}
        for level in torch.linspace(*ends, PROBE_LEVELS).exp().tolist():
            noise = keyed_normal(0, mine, energy.shape, PROBE).to(images)
            # Pure noise of the data's own RMS, under the same observation noise.
            blank = energy.sigma_data * keyed_normal(1, mine, energy.shape, PROBE).to(images)
            at_data = energy(images + level * noise, level)
            at_noise = energy(blank + level * noise, level)
            free_energy = energy.energy_to_free_energy(at_data, level)
            for name, value in (("V", free_energy), ("E", at_data), ("gap", at_noise - at_data)):
                metrics[f"{name}_s{level:.3g}"] = _updated(MeanMetric(), value)
        return _computed(metrics)

    def _show_samples(self, trainer: pl.Trainer, module: DiffusionModule, samples: Tensor) -> None:
        """The grid as a PNG in the run folder and in loggers that take images; vectors: nothing."""
        shape = module.denoiser.shape
        if len(shape) != 3 or shape[0] not in (1, 3):
            return
        samples = _gathered(samples.cpu().nan_to_num(), self.samples, trainer)
        if not trainer.is_global_zero:
            return
        images = trainer.global_step * module.batch_size
        file = Path(trainer.default_root_dir) / "samples" / f"{images:09d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        grid = image_grid(samples, module.normalization)
        grid.save(file)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                pixels = np.asarray(grid.convert("RGB"))
                logger.experiment.add_image(
                    "samples", pixels, trainer.global_step, dataformats="HWC"
                )
            elif hasattr(logger, "log_image"):  # Weights & Biases, MLflow
                logger.log_image(key="samples", images=[grid], step=trainer.global_step)


def _descent_metrics(result: SampleResult, device: torch.device) -> dict[str, float]:
    trace = result.trace
    assert trace is not None
    tolerance = rounding_tolerance(trace)
    total = trace.descent + trace.landscape
    rose = rises(total, tolerance)
    return _computed(
        {
            "descending": _updated(MeanMetric(), (~rose).float(), device),
            "worst_rise": _updated(MaxMetric(), torch.where(rose, total, 0.0), device),
            "descent_rises": _updated(
                MeanMetric(), rises(trace.descent, tolerance).float(), device
            ),
            "landscape_rises": _updated(
                MeanMetric(), rises(trace.landscape, tolerance).float(), device
            ),
        }
    )


def _gathered(samples: Tensor, count: int, trainer: pl.Trainer) -> Tensor:
    """All ranks' samples in the order of their seeds."""
    if trainer.world_size == 1:
        return samples
    parts: list[Tensor] = [samples] * trainer.world_size
    torch.distributed.all_gather_object(parts, samples)
    everything = samples.new_empty(count, *samples.shape[1:])
    for rank, part in enumerate(parts):
        everything[rank :: trainer.world_size] = part
    return everything


def _updated(metric: Metric, values: Tensor, device: torch.device | None = None) -> Metric:
    device = device or values.device
    metric = metric.to(device).set_dtype(torch.float64 if device.type == "cpu" else torch.float32)
    if values.numel():
        metric.update(values.to(device))
    return metric


def _computed(metrics: dict[str, Metric]) -> dict[str, float]:
    return {f"lyapunov/{name}": float(metric.compute()) for name, metric in metrics.items()}
