"""Feynman–Kac correctors as they are for scores alone: the arm that needs no energy.

With γ = Π p_j^{w_j} at s = σ² and ℓ_j = log p_j, for each ds of noise taken away

    dx = Σ w_j ∇ℓ_j ds + √ds z,
    d log w = ½(‖Σ w_j ∇ℓ_j‖² − Σ w_j ‖∇ℓ_j‖²) ds,

in which the heat equation of every ℓ_j has cancelled all Laplacians and derivatives in s (Skreta et
al. 2025). Euler–Maruyama steps; weights exact as the steps vanish. Of the two noises of the source
this is the target's; the tempered one leaves weights of infinite variance for two equal Gaussians.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor

from energydiff.energies import Energy, Sum
from energydiff.sampling.population import Weights


def corrected(energy: Sum, sigmas: Tensor, count: int, seed: int = 0) -> tuple[Tensor, float]:
    """``count`` samples at σ_min of one population, and its lowest effective sample size, a share.

    Args:
        energy: a sum of densities, negated ones by their weights; its values are not asked for.
    """
    generator, total = torch.Generator().manual_seed(seed), energy.densities

    def normal() -> Tensor:
        return torch.randn(count, *energy.shape, generator=generator).double()

    levels = sigmas.tolist()
    x, low = levels[0] / math.sqrt(total) * normal(), 1.0
    weights = Weights(torch.zeros(1, count).double(), torch.zeros(1).double())
    for sigma, following in pairwise(levels):
        ds = sigma**2 - following**2
        field, squares = torch.zeros_like(x), torch.zeros(count).double()
        for weight, member in zip(energy.weights, energy.members, strict=True):
            assert isinstance(member, Energy)
            score = member.score(x, sigma)
            field += weight * score
            squares += weight * score.flatten(1).square().sum(1)
        gain = 0.5 * ds * (field.flatten(1).square().sum(1) - squares)
        x = x + ds * field + math.sqrt(ds) * normal()
        weights = weights.times(gain[None])
        share = float(weights.ess) / count
        low = min(low, share)
        if share < 0.5 or following == levels[-1]:
            uniform = torch.rand(1, generator=generator)
            parents, weights = weights.resampled(uniform, torch.tensor([True]))
            x = x[parents]
    return x, low
