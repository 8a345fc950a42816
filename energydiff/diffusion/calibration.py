"""Fixes the gauge of a trained energy: the function c(σ) that score matching leaves free.

Two facts fix it. For the true density E_{x ~ p_σ}[∂E/∂log σ] = 0; with x = x0 + σε the target of
∂E/∂log σ at one point is d − ‖ε‖², so the mean of the residual ∂E/∂log σ − (d − ‖ε‖²) is −c′ with
far less variance than ∂E/∂log σ alone. And at σ_max the density is known:
E → ½‖x‖²/(σ²+σ_d²) + (d/2) log 2π(σ²+σ_d²).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from energydiff.denoisers import EnergyDenoiser
from energydiff.diffusion.batch import NoisyBatch
from energydiff.random import CALIBRATION, keyed_normal


@torch.no_grad()
def calibrate_gauge(
    energy: EnergyDenoiser,
    data: Tensor,
    sigma_min: float,
    sigma_max: float,
    *,
    evaluations: int = 16_384,
    seed: int = 0,
    batch_size: int = 256,
    on_batch: Callable[[int], None] | None = None,
) -> None:
    """Set ``energy.gauge`` in place between σ_min and σ_max.

    Args:
        data: clean samples from the training distribution, (N, \\*shape), in model coordinates.
        evaluations: noise derivatives to average; thousands are needed for tenths of a nat.
        on_batch: called with the number of evaluations done.
    """
    gauge = energy.gauge
    intervals = len(gauge.offset) - 1
    grid = torch.linspace(math.log(sigma_min), math.log(sigma_max), intervals + 1)
    gauge.set(grid, torch.zeros(intervals + 1))
    width = float(grid[1] - grid[0])
    strata = max(1, evaluations // intervals)
    total = strata * intervals
    sums = torch.zeros(intervals, dtype=torch.float64)
    was_training = energy.training
    energy.eval()
    for start in range(0, total, batch_size):
        draw = torch.arange(start, min(start + batch_size, total))
        interval, stratum = draw % intervals, draw // intervals
        # σ is spread evenly over each interval, so the sum is the integral of c′ itself.
        log_sigma = grid[interval] + width * (stratum + 0.5) / strata
        noise = keyed_normal(seed, draw.to(data.device), energy.shape, CALIBRATION, data.dtype)
        sigma = log_sigma.exp().to(data)
        # Two primes: each interval strides through all of the data from its own start.
        clean = data[(interval * 7919 + stratum * 104_729) % len(data)]
        batch = NoisyBatch(clean, sigma, noise, energy.sigma_data)
        residual = energy.noise_derivative(batch.x, sigma) - batch.time_target
        sums.index_add_(0, interval, residual.cpu().double())
        if on_batch is not None:
            on_batch(int(draw[-1]) + 1)
    slopes = -sums / strata

    offset = torch.zeros(intervals + 1, dtype=torch.float64)
    offset[1:] = (width * slopes).cumsum(0)
    anchor = _offset_at_sigma_max(energy, data, sigma_max, seed, batch_size)
    gauge.set(grid, (offset - offset[-1] + anchor).float())
    energy.train(was_training)


@torch.no_grad()
def anchor_gauge(energy: EnergyDenoiser, data: Tensor, sigma_max: float, seed: int = 0) -> None:
    """Set ``energy.gauge`` in place to the one constant that the density at σ_max fixes.

    For an energy whose objective has fixed it across σ; arguments as of :func:`calibrate_gauge`.
    """
    gauge = energy.gauge
    gauge.set(gauge.log_sigma.clone(), torch.zeros_like(gauge.offset))
    was_training = energy.training
    energy.eval()
    anchor = _offset_at_sigma_max(energy, data, sigma_max, seed, batch_size=256)
    gauge.set(gauge.log_sigma.clone(), torch.full_like(gauge.offset, anchor))
    energy.train(was_training)


def _offset_at_sigma_max(
    energy: EnergyDenoiser, data: Tensor, sigma: float, seed: int, batch_size: int
) -> float:
    """Mean of (known energy − E_θ) over noisy data at σ_max, nats, while the gauge is zero."""
    variance = sigma**2 + energy.sigma_data**2
    differences = []
    for start in range(0, min(len(data), 2048), batch_size):
        x0 = data[start : start + batch_size]
        draws = -1 - start - torch.arange(len(x0), device=x0.device)  # apart from those above
        x = x0 + sigma * keyed_normal(seed, draws, energy.shape, CALIBRATION, x0.dtype)
        known = x.square().flatten(1).sum(1) / (2 * variance)
        known = known + 0.5 * energy.dim * math.log(2 * math.pi * variance)
        differences.append(known - energy(x, sigma))
    return float(torch.cat(differences).cpu().double().mean())
