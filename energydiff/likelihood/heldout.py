"""The denoising loss on data that training never saw, with noise that never changes."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from energydiff.data import Source
from energydiff.diffusion import NoisyBatch, denoising_loss
from energydiff.energies.base import Denoiser
from energydiff.random import HELD_OUT, keyed_normal

_INDICES_PER_LEVEL = 1 << 32


def held_out_losses(
    denoiser: Denoiser,
    source: Source,
    sigmas: Sequence[float] | Tensor,
    sigma_data: float,
    seed: int = 0,
    batch_size: int = 256,
) -> Tensor:
    """EDM-weighted denoising loss per dimension at each noise level, (levels,) float64.

    The mean over the source of (1/c_out²) ‖D(x0 + σε, σ) − x0‖² / d with
    c_out² = σ²σ_d²/(σ² + σ_d²) (Karras et al. 2022, table 1); D = c_skip x, the best guess without
    a network, scores about 1 at every level.

    The noise belongs to (seed, sample, level): two models meet the same noise, whatever the batch
    size. The denoiser is used in the mode it is in and on the device it is on; class labels are
    passed if it takes any.
    """
    device = next(iter(denoiser.state_dict().values()), torch.empty(0)).device
    levels = [float(sigma) for sigma in sigmas]
    totals = torch.zeros(len(levels), dtype=torch.float64)
    first = 0
    for raw, label in DataLoader(source, batch_size):
        x0 = source.normalization.encode(raw).to(device)
        labels = label.to(device) if denoiser.num_classes else None
        for k, sigma in enumerate(levels):
            start = k * _INDICES_PER_LEVEL + first
            noise = keyed_normal(seed, range(start, start + len(x0)), source.shape, HELD_OUT)
            level = torch.full((len(x0),), sigma, device=device)
            with torch.no_grad():
                batch = NoisyBatch(x0, level, noise.to(device), sigma_data, labels)
                losses = denoising_loss(denoiser, batch)
            totals[k] += losses.cpu().double().sum()
        first += len(x0)
    return totals / len(source)


def held_out_loss(
    denoiser: Denoiser,
    source: Source,
    sigmas: Sequence[float] | Tensor,
    sigma_data: float,
    seed: int = 0,
    batch_size: int = 256,
) -> float:
    """The mean of ``held_out_losses`` over the noise levels."""
    return float(held_out_losses(denoiser, source, sigmas, sigma_data, seed, batch_size).mean())
