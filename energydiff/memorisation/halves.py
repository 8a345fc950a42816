"""Two models of disjoint halves of the data: is it one energy (Kadkhodaie et al. 2024)?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from energydiff.energies import Denoiser
from energydiff.random import HELD_OUT, keyed_normal


@dataclass(frozen=True)
class Halves:
    """How alike two models are.

    Attributes:
        sigma: S noise levels.
        denoisers: RMS of D_a − D_b at noisy held-out samples over the RMS of their mean error,
            (S,): 0 of one model, about √2 of two that are right as often as chance.
        energies: of E_a − E_b at those states the standard deviation over that of E_a, (S,); NaN
            without energies.
        samples: mean cosine between samples of the two from the same noise, each minus the mean
            training sample.
        apart: median distance between these samples.
        chance: mean cosine between samples from different noise.
    """

    sigma: Tensor
    denoisers: Tensor
    energies: Tensor
    samples: float
    apart: float
    chance: float

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "sigma": self.sigma.tolist(),
            "denoisers": self.denoisers.tolist(),
            "energies": self.energies.tolist(),
            "samples": self.samples,
            "apart": self.apart,
            "chance": self.chance,
        }


@torch.no_grad()
def compare_halves(
    first: Denoiser,
    second: Denoiser,
    held_out: Tensor,
    samples: tuple[Tensor, Tensor],
    mean: Tensor,
    levels: Sequence[float],
) -> Halves:
    """Set two models beside each other.

    Args:
        held_out: clean samples neither was trained on, (n, \\*shape).
        samples: of each model from the same noise, (m, \\*shape).
        mean: of the data, (\\*shape).
    """
    denoisers, energies = [], []
    for number, level in enumerate(levels):
        indices = range(number << 32, (number << 32) + len(held_out))
        noise = keyed_normal(0, indices, tuple(held_out.shape[1:]), HELD_OUT)
        noisy = held_out + level * noise
        a, b = (model.denoise(noisy, level) for model in (first, second))
        error = 0.5 * ((a - held_out).square().mean() + (b - held_out).square().mean())
        denoisers.append(float(((a - b).square().mean() / error).sqrt()))
        energies.append(_energies(first, second, noisy, level))
    left, right = ((part - mean).flatten(1).double() for part in samples)
    cosine = torch.nn.functional.cosine_similarity
    return Halves(
        torch.as_tensor(levels, dtype=torch.float64),
        torch.tensor(denoisers),
        torch.tensor(energies),
        float(cosine(left, right).mean()),
        float((left - right).norm(dim=1).median()),
        float(cosine(left, right.roll(1, 0)).mean()),
    )


def _energies(first: Denoiser, second: Denoiser, x: Tensor, sigma: float) -> float:
    if first.energy is None or second.energy is None:
        return math.nan
    a, b = first.energy(x, sigma).double(), second.energy(x, sigma).double()
    return float((a - b).std() / a.std())
