"""Watches the Lyapunov function of the averaged model while it trains."""

import math
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import Tensor
from torchmetrics import MaxMetric, MeanMetric, Metric, MinMetric

from energydiff.data import image_grid
from energydiff.denoisers import STEP_SIZE, BlindEnergy, EnergyDenoiser
from energydiff.diffusion import NoisyBatch, calibrate_gauge
from energydiff.energies import Energy
from energydiff.landscape import curvature
from energydiff.likelihood import heat_residual
from energydiff.random import PROBE, keyed_normal
from energydiff.sampling import Armijo, Euler, Sampler, SampleResult, karras_sigmas
from energydiff.sampling.certificate import rises, rounding_tolerance
from energydiff.training.data import DiffusionData
from energydiff.training.finish import choose_resting_norm
from energydiff.training.loggers import log_grid
from energydiff.training.module import DiffusionModule
from energydiff.training.periodic import PeriodicCallback, gathered

PROBE_LEVELS = 5
LANCZOS_STEPS = 8
EXTREMES: dict[str, type[Metric]] = {"lambda_max": MaxMetric, "lambda_min": MinMetric}


class LyapunovMonitor(PeriodicCallback):
    """Every n images: a fixed-seed sample grid and the state of the Lyapunov function.

    All with averaged weights, the same probe images and the same noise each time, after a quick
    calibration of the gauge (without it the landscape part shows the gauge, not the model). Each
    rank takes its share of the probes and torchmetrics reduces, so two ranks log what one would.

    Logged under ``lyapunov/``: ``V_s<σ>`` and ``E_s<σ>``, means over noisy held-out images;
    ``gap_s<σ>``, mean E of pure noise of the data's RMS minus that of the data, at the same σ;
    ``time_residual_s<σ>``, mean of ∂E/∂log σ − (d − ‖ε‖²), nats, 0 for a true density; at a few of
    these states ``heat_residual_s<σ>``, the heat equation's relative residual, ``lambda_max_s<σ>``,
    the largest λ_max(∇²V), ``lambda_min_s<σ>``, the smallest λ_min(∇D), and ``V_unordered_s<σ>``,
    the share where ∂V/∂σ < 0;
    ``descending``, share of probe steps along which V fell; ``worst_rise`` of V in one step;
    ``descent_rises`` and ``landscape_rises``, share of steps on which either part rose.

    Args:
        every_images: how often; rounded to whole optimizer steps.
        samples: probe trajectories, and images in the grid.
        steps: Euler steps of each trajectory; Armijo steps on a noise-blind energy.
        probe_images: held-out images on which V and E are averaged.
        curvature_states: of these, how many are looked at for curvature and the heat equation;
            0: that part is left out.
        calibration_evaluations: noise derivatives spent on the quick calibration.
    """

    def __init__(
        self,
        every_images: int = 200_000,
        samples: int = 64,
        steps: int = 18,
        probe_images: int = 256,
        curvature_states: int = 8,
        calibration_evaluations: int = 2_048,
    ) -> None:
        super().__init__(every_images)
        self.samples, self.steps = samples, steps
        self.probe_images, self.curvature_states = probe_images, curvature_states
        self.calibration_evaluations = calibration_evaluations

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
            sigmas = karras_sigmas(self.steps, *denoiser.require_noise())
            sampler = Euler(sigmas, final_denoise=True)
        if denoiser.energy is not None and not denoiser.noise_blind:
            values |= self._probe_energy(trainer, module, data)
        seeds = range(trainer.global_rank, self.samples, trainer.world_size)
        result = sampler(denoiser, seeds=seeds)
        if result.trace is not None:
            values |= _descent_metrics(result, module.device)
        self._show_samples(trainer, module, result.samples)
        denoiser.train(was_training)
        for logger in trainer.loggers:
            logger.log_metrics(values, step=module.images_after(trainer.global_step))
        return values

    def _probe_energy(
        self, trainer: pl.Trainer, module: DiffusionModule, data: DiffusionData
    ) -> dict[str, float]:
        """Mean V, mean E and the gap between noise and data at several σ."""
        energy = module.denoiser.require_energy()
        calibrated = self.calibration_evaluations and not module.objective.fixes_gauge
        if calibrated and isinstance(energy, EnergyDenoiser):
            calibrate_gauge(
                energy,
                data.train_source.clean(self.calibration_evaluations).to(module.device),
                *energy.require_noise(),
                evaluations=self.calibration_evaluations,
            )
        clean = data.watched_source.clean(self.probe_images).to(module.device)
        mine = _share(len(clean), trainer)
        looked_at = min(self.curvature_states, len(clean))
        watched = _share(looked_at, trainer)
        metrics: dict[str, Metric] = {}
        low, high = energy.require_noise()
        for level in torch.linspace(math.log(low), math.log(high), PROBE_LEVELS).exp().tolist():
            noise = keyed_normal(0, mine, energy.shape, PROBE).to(clean)
            probes = clean[mine.start : mine.stop]
            sigma = clean.new_tensor(level).expand(len(probes))  # one level, embedded once
            batch = NoisyBatch(probes, sigma, noise, module.sigma_data)
            # Pure noise of the data's own RMS, under the same observation noise.
            blank = module.sigma_data * keyed_normal(1, mine, energy.shape, PROBE).to(clean)
            at_data, _, slope = energy.value_and_grads(batch.x, sigma)
            values = {
                "V": energy.energy_to_free_energy(at_data, level),
                "E": at_data,
                "gap": energy(blank + level * noise, level) - at_data,
                "time_residual": slope - batch.time_target,
            }
            states = clean[watched.start : watched.stop]
            states = states + level * keyed_normal(0, watched, energy.shape, PROBE).to(clean)
            if looked_at:
                values |= _watched(energy, states, level, watched.start)
            for name, value in values.items():
                kind = EXTREMES.get(name, MeanMetric)
                metrics[f"{name}_s{level:.3g}"] = _updated(kind(), value, module.device)
        return _computed(metrics)

    def _show_samples(self, trainer: pl.Trainer, module: DiffusionModule, samples: Tensor) -> None:
        """The grid as a PNG in the run folder and in loggers that take images, if they are any."""
        if module.normalization.picture_shape(module.denoiser.shape) is None:
            return
        samples = gathered(samples.cpu().nan_to_num(), self.samples, trainer)
        if not trainer.is_global_zero:
            return
        images = module.images_after(trainer.global_step)
        file = Path(trainer.default_root_dir) / "samples" / f"{images:09d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        grid = image_grid(samples, module.normalization)
        grid.save(file)
        log_grid(trainer.loggers, grid, images)


def _share(count: int, trainer: pl.Trainer) -> range:
    """This rank's part of ``count`` probes, in one piece."""
    rank, ranks = trainer.global_rank, trainer.world_size
    return range(rank * count // ranks, (rank + 1) * count // ranks)


def _watched(energy: Energy, states: Tensor, level: float, first: int) -> dict[str, Tensor]:
    """How consistent and how curved the energy is at a few states, each (B,)."""
    if not len(states):
        return {name: states.new_empty(0) for name in ("heat_residual", *EXTREMES, "V_unordered")}
    curved = curvature(energy, states, level, iterations=LANCZOS_STEPS, first=first)
    return {
        "heat_residual": heat_residual(energy, states, level, first=first).relative.abs(),
        "lambda_max": curved.highest,
        "lambda_min": curved.denoiser_lowest,
        "V_unordered": (curved.noise_slope < 0).float(),
    }


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


def _updated(metric: Metric, values: Tensor, device: torch.device | None = None) -> Metric:
    device = device or values.device
    metric = metric.to(device).set_dtype(torch.float64 if device.type == "cpu" else torch.float32)
    if values.numel():
        metric.update(values.to(device))
    return metric


def _computed(metrics: dict[str, Metric]) -> dict[str, float]:
    return {f"lyapunov/{name}": float(metric.compute()) for name, metric in metrics.items()}
