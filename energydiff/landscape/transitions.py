"""The two transitions of generation: speciation, where a sample's class is decided, and collapse,
where it is decided which training point it will be (Biroli et al. 2024).

Speciation: noise as large as the data along their first principal axis,

    σ_S = √Λ,    in variance-preserving time ½ log Λ for Λ ≫ 1 (there the noise is 1).

For two Gaussians at ±m with standard deviation s in every direction the pitchfork of E is at
σ² = ‖m‖² − s². Two clones of a state x_σ there end in the same class with chance

    E_z [p² + (1 − p)²] = .7752,    p = 1/(1 + e^(−2 − 2z)),  z ~ N(0, 1),

whatever m and s are: that is what is looked for in a model.

Collapse: n data points no longer fill the volume of the noised density. For a Gaussian of standard
deviation s in d dimensions the entropies agree, log n = (d/2) log(1 + s²/σ²), at

    σ_C = s / √(n^(2/d) − 1).

In a data set: the noise below which the posterior of a noised point holds more than half on it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from energydiff.energies.base import Denoiser
from energydiff.errors import UserError
from energydiff.landscape.basins import wilson
from energydiff.progress import with_progress
from energydiff.random import PROBE, keyed_normal
from energydiff.sampling.ancestral import Ancestral
from energydiff.sampling.grids import karras_sigmas

SPECIATION = 0.775200  # chance of the same class at the pitchfork of two Gaussians


def speciation_noise(data: Tensor) -> float:
    """√Λ, Λ the largest eigenvalue of the covariance of data (K, \\*shape), units of x."""
    rows = data.flatten(1).double()
    rows = rows - rows.mean(0)
    gram = rows.T @ rows if rows.shape[1] <= len(rows) else rows @ rows.T
    return math.sqrt(float(torch.linalg.eigvalsh(gram / len(rows))[-1]))


def speciation_time(data: Tensor) -> float:
    """½ log Λ: the time of a variance-preserving process, x_t = e^−t x0 + √(1 − e^−2t) ε."""
    return math.log(speciation_noise(data))


def collapse_noise(std: float, dim: int, count: int) -> float:
    """σ_C = s/√(n^(2/d) − 1) of n points of a Gaussian of standard deviation s, units of x."""
    if not (std > 0 and dim > 0 and count > 1):
        raise UserError(
            f"collapse needs std > 0, dim > 0 and count > 1, got {std}, {dim} and {count}."
        )
    return std / math.sqrt(math.expm1(2 * math.log(count) / dim))


@dataclass(frozen=True)
class Condensation:
    """How the posterior w of the data, given noised points of it, condenses as noise falls.

    Attributes:
        sigma: levels, rising, (S,).
        own: weight of the point that was noised, (S, B).
        participation: 1/Σ w², how many points share the posterior, (S, B).
    """

    sigma: Tensor
    own: Tensor
    participation: Tensor

    @property
    def collapse(self) -> float:
        """σ below which half of the noised points hold more than half of their own posterior."""
        return crossing(self.sigma, self.own.median(1).values, 0.5)


def condensation(
    data: Tensor, sigmas: Sequence[float] | Tensor, *, samples: int = 256, seed: int = 0
) -> Condensation:
    """Noise ``samples`` of the data points (K, \\*shape), drawn without order, to each level."""
    levels = _rising(sigmas)
    y = data.flatten(1).double()
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    rows = order[torch.arange(samples) % len(y)].to(y.device)
    noise = keyed_normal(seed, range(samples), (y.shape[1],), PROBE, torch.float64).to(y)
    own, shared = [], []
    for sigma in with_progress(levels.tolist(), len(levels), "Condensation"):
        x = y[rows] + sigma * noise
        squared = x.square().sum(1, keepdim=True) + y.square().sum(1) - 2 * x @ y.T
        weights = (-squared / (2 * sigma**2)).softmax(1)
        own.append(weights.gather(1, rows[:, None])[:, 0].cpu())
        shared.append(1 / weights.square().sum(1).cpu())
    return Condensation(levels, torch.stack(own), torch.stack(shared))


@dataclass(frozen=True)
class Cloning:
    """How often two clones of a noisy state end in the same class.

    Attributes:
        sigma: levels, rising, (S,).
        same: pairs that ended in the same class, (S,).
        pairs: of each level.
    """

    sigma: Tensor
    same: Tensor
    pairs: int

    @property
    def curve(self) -> Tensor:
        """Share with its 95 % Wilson interval: share, low, high, (3, S)."""
        return torch.stack([self.same / self.pairs, *wilson(self.same, self.pairs)])

    @property
    def speciation(self) -> float:
        """σ at which the share falls to that of two Gaussians at their pitchfork."""
        return crossing(self.sigma, self.same / self.pairs, SPECIATION)


def cloning(
    model: Denoiser,
    data: Tensor,
    sigmas: Sequence[float] | Tensor,
    classify: Callable[[Tensor], Tensor],
    *,
    steps: int = 50,
    sigma_min: float | None = None,
    seed: int = 0,
) -> Cloning:
    """Noise data (B, \\*shape) to each level and bring every state back twice, by ancestral
    sampling with noise of its own.

    Args:
        classify: samples (B, \\*shape) to classes (B,).
        sigma_min: the lowest noise of the model where it is not given; a closed form needs it.
    """
    levels, count = _rising(sigmas), len(data)
    lowest = sigma_min or model.require_noise().sigma_min
    noise = keyed_normal(seed, range(count), tuple(data.shape[1:]), PROBE, data.dtype).to(data)
    seeds = [2 * count * seed + i for i in range(2 * count)]
    same = []
    for sigma in with_progress(levels.tolist(), len(levels), "Cloning"):
        x = (data + sigma * noise).repeat(2, *[1] * (data.ndim - 1))
        sampler = Ancestral(karras_sigmas(steps, lowest, sigma), final_denoise=True)
        classes = classify(sampler(model, x, seeds=seeds, trace=False).samples)
        same.append((classes[:count] == classes[count:]).sum().cpu())
    return Cloning(levels, torch.stack(same), count)


def crossing(sigma: Tensor, value: Tensor, level: float) -> float:
    """Largest σ at which a falling curve passes the level, by log σ; NaN where it does not."""
    above = (value >= level).nonzero()[:, 0]
    if not len(above) or above[-1] == len(value) - 1:
        return math.nan
    i = int(above[-1])
    (a, b), (low, high) = value[i : i + 2].tolist(), sigma[i : i + 2].log().tolist()
    return math.exp(low + (high - low) * (a - level) / (a - b))


def _rising(sigmas: Sequence[float] | Tensor) -> Tensor:
    levels = torch.as_tensor(sigmas, dtype=torch.float64).flatten().cpu().sort().values
    if not len(levels) or not levels[0] > 0:
        raise UserError(f"noise levels must be positive, got {levels.tolist()}.")
    return levels
