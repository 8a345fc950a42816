"""Spurious states are minima: shown, followed as the training set grows, and beside theory.

A sample is let down to the fixed point of V(·, σ) that it belongs to, and that is examined:
residual, Morse index, margin. What theory says of the training set itself is exact: between noise
levels that can be computed its log-sum-exp energy has minima that are no training point.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from energydiff.landscape.critical import (
    COARSE,
    TOLERANCE,
    CriticalPoints,
    critical_points,
    distinct,
    examine,
    merging_radius,
    nearest,
)
from energydiff.landscape.search import descend, newton
from energydiff.landscape.surface import Surface
from energydiff.random import PROBE, keyed_normal

VALLEY = 0.05  # an eigenvalue of ∇²V below this is a direction in which V hardly rises
AROUND = 8  # searches around a minimum, from half of σ away, for what it may have split into
Fate = Literal["persists", "memory", "valley", "split", "gone"]


@dataclass(frozen=True)
class Scan:
    """How n samples come to rest at S noise levels.

    Attributes:
        home: at a state within δ of a training sample, (S, n).
        spurious: at one that is further from all, (S, n); where neither, the search did not end.
        moved: how far from the sample, (S, n), units of x.
    """

    home: Tensor
    spurious: Tensor
    moved: Tensor


def scan(surface: Surface, x: Tensor, train: Tensor, sigmas: Sequence[float], delta: float) -> Scan:
    """Let samples x (n, \\*shape) down at every noise level, in float32 where a network is asked.

    Args:
        train: what the model was trained on, (K, \\*shape).
        delta: δ, units of x.
    """
    coarse = surface.coarse
    start = coarse.flat(x).repeat(len(sigmas), 1)
    levels = torch.tensor(sigmas).to(start).repeat_interleave(len(x))
    low = descend(coarse, start, levels, steps=300)
    search = newton(coarse, low, levels, 0, steps=40, tolerance=COARSE, task="Coming to rest")
    away = nearest(coarse.shaped(search.x), train)[0]
    ended, near = search.converged.cpu(), away <= delta
    parts = ended & near, ended & ~near, (search.x - start).norm(dim=1).cpu()
    return Scan(*(part.view(len(sigmas), len(x)) for part in parts))


@dataclass(frozen=True)
class Rest:
    """Where n samples come to rest at one noise.

    Attributes:
        points: critical points, one for each sample whose search converged.
        sample: number of that sample, (m,).
        moved: how far it lies from the sample, (m,), units of x.
        to_train: how far from the nearest training sample, (m,).
    """

    points: CriticalPoints
    sample: Tensor
    moved: Tensor
    to_train: Tensor

    @property
    def certified(self) -> Tensor:
        """Minima: index 0, and a point of that index certain to be near, (m,)."""
        return (self.points.index == 0) & self.points.trusted

    def spurious(self, delta: float) -> Tensor:
        """Minima that are no training sample: further than δ from all, (m,)."""
        return self.certified & (self.to_train > delta)

    def plain(self, delta: float) -> dict[str, Any]:
        """As plain data."""
        points = self.points
        return {
            "found": len(points),
            "minima": int(self.certified.sum()),
            "spurious_minima": int(self.spurious(delta).sum()),
            "distinct": len(distinct(points.x, 0.1 * delta)),
            "sample": self.sample.tolist(),
            "index": points.index.tolist(),
            "grad_norm": points.grad_norm.tolist(),
            "margin": points.margin.tolist(),
            "lowest_eigenvalue": points.eigenvalues[:, 0].tolist(),
            "trusted": points.trusted.tolist(),
            "V": points.free_energy.tolist(),
            "moved": self.moved.tolist(),
            "to_train": self.to_train.tolist(),
        }


def rest(surface: Surface, x: Tensor, train: Tensor, sigma: float) -> Rest:
    """Let samples x (n, \\*shape) down to the fixed points of V(·, σ), and examine these.

    Args:
        train: what the model was trained on, (K, \\*shape).
    """
    coarse = surface.coarse
    low = descend(coarse, coarse.flat(x), sigma, steps=500)
    if coarse is not surface:
        low = newton(coarse, low, sigma, steps=40, tolerance=COARSE, task="Coming to rest").x
    search = newton(surface, surface.flat(low), sigma, 0, tolerance=TOLERANCE, task="Certifying")
    sample = search.converged.cpu().nonzero()[:, 0]
    points = examine(surface, search.x[search.converged], sigma)
    moved = (points.x - x[sample].to(points.x)).flatten(1).norm(dim=1)
    return Rest(points, sample, moved, nearest(points.x, train)[0])


def fates(
    surface: Surface, x: Tensor, train: Tensor, sigma: float, reach: float, seed: int = 0
) -> list[Fate]:
    """What minima x (n, \\*shape) of one model have become in another, that knows more samples.

    Searched for from x and from states half of σ away; what is farther than ``reach`` is another.
    ``gone``: none; ``valley``: one with a direction in which V hardly rises (an eigenvalue below
    0.05); ``split``: several; ``memory``: one, now within a quarter of ``reach`` of a training
    sample; ``persists``: one that is not.

    Args:
        train: the samples of the other model, (K, \\*shape).
    """
    if not len(x):
        return []
    start = surface.flat(x)
    noise = keyed_normal(seed, range(len(start) * AROUND), (surface.dim,), PROBE).to(start)
    away = start.repeat_interleave(AROUND, 0) + 0.5 * sigma * noise / surface.dim**0.5
    coarse = surface.coarse
    low = descend(coarse, coarse.flat(torch.cat([start, away])), sigma, steps=500)
    found = critical_points(surface, surface.flat(low), sigma, 0, "Following minima").of_index(0)
    distance = torch.cdist(start.cpu().double(), found.x.flatten(1))
    to_train = nearest(found.x, train)[0]
    told: list[Fate] = []
    for row in distance <= reach:
        lowest = found.eigenvalues[row, 0]
        if not len(lowest):
            told.append("gone")
        elif float(lowest.min()) < VALLEY:
            told.append("valley")
        elif len(lowest) > 1:
            told.append("split")
        else:
            told.append("memory" if float(to_train[row].min()) <= 0.25 * reach else "persists")
    return told


@dataclass(frozen=True)
class ExactMinima:
    """Minima of the energy of a finite set itself at one noise.

    Attributes:
        alone: samples with a minimum to themselves.
        spurious: minima that several samples share or that none leads to, as far as searched for.
        minima: all.
    """

    alone: int
    spurious: CriticalPoints
    minima: CriticalPoints


def exact_minima(surface: Surface, data: Tensor, starts: Tensor, sigma: float) -> ExactMinima:
    """Minima of V(·, σ) of ``EmpiricalData`` from its samples (K, \\*shape) and from other starts
    (n, \\*shape), such as what a model generates."""
    radius = merging_radius(surface)
    x = torch.cat([surface.flat(data), surface.flat(starts)])
    low = descend(surface, x, sigma, eta=0.5, tolerance=1e-4)
    search = newton(surface, low, sigma, 0, tolerance=TOLERANCE, task="Exact minima")
    found = search.x[search.converged]
    points = examine(surface, found[distinct(found, radius)], sigma).of_index(0)
    homes = nearest(surface.shaped(search.x[: len(data)]), points.x)
    near = (homes[0] <= radius) & search.converged[: len(data)].cpu()
    number = torch.where(near, homes[1], -1)
    owners = torch.bincount(number[number >= 0], minlength=len(points))
    return ExactMinima(int((owners == 1).sum()), points[owners != 1], points)


@dataclass(frozen=True)
class Window:
    """Noise levels between which a set's energy has a minimum on every sample and one on none.

    Attributes:
        low: where the spurious minimum appears as noise rises.
        high: where the first memory is lost.
    """

    low: float
    high: float


def spurious_window(
    surface: Surface, data: Tensor, start: Tensor, levels: Sequence[float], precision: float = 1e-6
) -> Window | None:
    """The window of a spurious minimum that descent from ``start`` (\\*shape) finds, if any.

    Looked for on the levels and then by bisection to ``precision``, relative.
    """

    def coexist(sigma: float) -> bool:
        found = exact_minima(surface, data, start[None], sigma)
        return found.alone == len(data) and len(found.spurious) > 0

    grid = sorted(levels)
    inside = [coexist(level) for level in grid]
    if not any(inside):
        return None
    first, last = inside.index(True), len(grid) - 1 - inside[::-1].index(True)

    def edge(within: float, without: float) -> float:
        while abs(within - without) > precision * within:
            middle = 0.5 * (within + without)
            within, without = (middle, without) if coexist(middle) else (within, middle)
        return 0.5 * (within + without)

    low = grid[0] if first == 0 else edge(grid[first], grid[first - 1])
    high = grid[-1] if last == len(grid) - 1 else edge(grid[last], grid[last + 1])
    return Window(low, high)
