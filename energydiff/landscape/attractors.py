"""From generation to memory as noise vanishes: the attractors of V(·, σ) against σ.

At σ ≥ half the diameter of the data there is one; as σ → 0 there is one on every point. Between
them lie averages over many points, spurious states among them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from energydiff.landscape.critical import (
    COARSE,
    TOLERANCE,
    CriticalPoints,
    critical_points,
    merging_radius,
    nearest,
)
from energydiff.landscape.search import descend, newton
from energydiff.landscape.surface import Surface
from energydiff.progress import with_progress


@dataclass(frozen=True)
class Attractors:
    """Minima of V at S noise levels, and which of them K data points lead to.

    Attributes:
        sigma: levels, falling, (S,).
        minima: at each level.
        home: number of the minimum that descent from each point ends in, (S, K); −1 where the
            search for it did not converge.
    """

    sigma: Tensor
    minima: list[CriticalPoints]
    home: Tensor

    @property
    def count(self) -> Tensor:
        """Attractors found, (S,): no fewer exist."""
        return torch.tensor([len(points) for points in self.minima])

    @property
    def spurious(self) -> Tensor:
        """Attractors that no data point leads to, (S,)."""
        homes = torch.tensor([len(set(row.tolist()) - {-1}) for row in self.home])
        return self.count - homes

    @property
    def alone(self) -> Tensor:
        """Share of the data points that have an attractor to themselves, (S,)."""
        shares = []
        for row in self.home:
            _, group, size = row.unique(return_inverse=True, return_counts=True)
            shares.append(((size[group] == 1) & (row >= 0)).double().mean())
        return torch.stack(shares)


def attractors(surface: Surface, data: Tensor, sigmas: Sequence[float] | Tensor) -> Attractors:
    """Minima from all data points (K, \\*shape) and from those of the level above, followed down.

    Args:
        sigmas: levels, taken from the highest down.
    """
    levels = torch.as_tensor(sigmas, dtype=torch.float64).flatten().sort(descending=True).values
    coarse = surface.coarse
    exact = coarse is surface
    radius = (1 if exact else 10) * merging_radius(surface)
    points = coarse.flat(data)
    above, found, homes = points[:0], [], []
    for sigma in with_progress(levels.tolist(), len(levels), "Counting attractors"):
        low = descend(coarse, torch.cat([points, above]), sigma, eta=0.5, tolerance=1e-4)
        tolerance = TOLERANCE if exact else COARSE
        ends = newton(coarse, low, sigma, tolerance=tolerance, task="Searching minima").x
        minima = critical_points(surface, ends, sigma, 0, "Refining minima").of_index(0)
        above = coarse.flat(minima.x)
        distance, number = nearest(ends[: len(points)], above)
        homes.append(torch.where(distance <= radius, number, -1))
        found.append(minima)
    return Attractors(levels, found, torch.stack(homes))
