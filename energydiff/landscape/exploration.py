"""From samples to the Morse graph of V(·, σ): minima, saddles between them, and how they hang
together."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from energydiff.errors import UserError
from energydiff.landscape.critical import (
    CriticalPoints,
    critical_points,
    distinct,
    merging_radius,
    nearest,
)
from energydiff.landscape.morse import MorseGraph, morse_graph
from energydiff.landscape.search import descend
from energydiff.landscape.strings import neighbours, soft_starts, string, summits
from energydiff.landscape.surface import Surface
from energydiff.random import PROBE, keyed_normal

Stage = Callable[[str, Callable[[], CriticalPoints]], CriticalPoints]


@dataclass(frozen=True)
class Effort:
    """How hard to look.

    Attributes:
        starts: states that searches for minima begin from.
        neighbours: of each minimum, so many are joined to it by strings.
        soft: of each minimum, along so many of its softest modes a saddle is looked for.
        noise: starts of searches for saddles from noisy data.
        rounds: of strings between parts of the graph that do not hang together.
        index_two: of the lowest index-1 saddles, from so many saddles of index 2 are looked for.
    """

    starts: int = 256
    neighbours: int = 3
    soft: int = 2
    noise: int = 64
    rounds: int = 3
    index_two: int = 32


@dataclass(frozen=True)
class Landscape:
    """What was found: the graph, and critical points of higher index."""

    graph: MorseGraph
    others: CriticalPoints

    @property
    def points(self) -> CriticalPoints:
        """All critical points, by index."""
        return CriticalPoints.join([self.graph.minima, self.graph.saddles, self.others])


def minima(surface: Surface, x: Tensor, sigma: float) -> CriticalPoints:
    """Distinct minima that descents from x (B, d) end in, from the lowest V up.

    Raises:
        UserError: none of them ends in one.
    """
    low = surface.flat(descend(surface.coarse, surface.coarse.flat(x), sigma))
    found = critical_points(surface, low, sigma, 0, "Searching minima").of_index(0)
    if not len(found):
        raise UserError(
            f"no minimum of V was found at sigma = {sigma:g} from {len(x)} starts: the landscape is"
            " flat or unbounded there; try a higher sigma or more starts."
        )
    return found


def explore(
    surface: Surface,
    data: Tensor,
    sigma: float,
    effort: Effort | None = None,
    *,
    seed: int = 0,
    stage: Stage = lambda name, work: work(),
) -> Landscape:
    """Minima from data (K, \\*shape), saddles between them, the Morse graph.

    Args:
        stage: called with the name of a stage and its work, to keep results where a study is to go
            on after an interruption.

    Raises:
        UserError: no minimum was found; σ is outside the model's range; V cannot be differentiated
            twice.
    """
    effort = effort or Effort()
    surface.check(sigma)
    starts = _noisy(surface, data, 0.0, effort.starts, seed)
    low = stage("minima", lambda: minima(surface, starts, sigma))
    saddles = stage("saddles", lambda: _saddles(surface, low, data, sigma, effort, seed))
    graph = morse_graph(surface, low, saddles, sigma)
    for number in range(effort.rounds):
        pairs = _apart(graph)
        if not len(pairs):
            break
        name = f"connections {number + 1}"
        more = stage(name, partial(_between, surface, graph.minima, pairs, sigma)).of_index(1)
        new = more[nearest(more.x, graph.saddles.x)[0] > merging_radius(surface)]
        if not len(new):
            break
        graph = morse_graph(surface, graph.minima, new, sigma, graph)
    others = stage("index 2", lambda: _index_two(surface, graph.saddles, sigma, effort))
    return Landscape(graph, others)


def _saddles(
    surface: Surface,
    low: CriticalPoints,
    data: Tensor,
    sigma: float,
    effort: Effort,
    seed: int,
) -> CriticalPoints:
    """Index-1 saddles from strings, along soft modes and from noise."""
    x = surface.flat(low.x)
    parts = []
    if len(low) > 1:
        parts.append(_between(surface, low, neighbours(x, effort.neighbours), sigma))
    soft = low.modes[:, : effort.soft].flatten(2).to(x)
    from_soft = soft_starts(x, soft, sigma, 1.0)
    parts.append(
        critical_points(
            surface,
            from_soft,
            sigma,
            1,
            "Searching saddles along soft modes",
            torch.cat([soft, soft], 1).flatten(0, 1)[:, None],
        )
    )
    noisy = _noisy(surface, data, sigma, effort.noise, seed)
    parts.append(critical_points(surface, noisy, sigma, 1, "Searching saddles from noise"))
    return _merged(surface, parts).of_index(1)


def _between(surface: Surface, low: CriticalPoints, pairs: Tensor, sigma: float) -> CriticalPoints:
    """Critical points from the summits of strings between pairs (P, 2) of minima."""
    x = surface.coarse.flat(low.x)
    path, value = string(surface.coarse, x[pairs[:, 0]], x[pairs[:, 1]], sigma)
    top, along, _ = summits(path, value)
    top, along = surface.flat(top), surface.flat(along)
    return critical_points(surface, top, sigma, 1, "Searching saddles on strings", along[:, None])


def _apart(graph: MorseGraph) -> Tensor:
    """Nearest pairs (P, 2) of minima between each part of the graph and the rest."""
    parts, x = graph.components(), graph.minima.x.flatten(1)
    pairs = []
    for part in parts if len(parts) > 1 else []:
        inside = torch.zeros(len(x), dtype=torch.bool)
        inside[part] = True
        distance = torch.cdist(x[inside], x[~inside])
        for flat in distance.flatten().argsort()[:3].tolist():
            a, b = divmod(flat, distance.shape[1])
            pairs.append([int(inside.nonzero()[a]), int((~inside).nonzero()[b])])
    return torch.tensor(pairs, dtype=torch.int64).view(-1, 2).sort(dim=1).values.unique(dim=0)


def _index_two(
    surface: Surface, saddles: CriticalPoints, sigma: float, effort: Effort
) -> CriticalPoints:
    """Saddles of index 2 from index-1 saddles, along their softest mode that leads up."""
    first = saddles[: effort.index_two]
    if not len(first) or surface.dim < 2:
        return saddles[:0]
    x, modes = surface.flat(first.x), first.modes[:, 1:2].flatten(2).to(surface.device)
    both = first.modes[:, :2].flatten(2).to(x).repeat_interleave(2, 0)
    found = critical_points(
        surface, soft_starts(x, modes, sigma, 1.0), sigma, 2, "Searching saddles of index 2", both
    )
    return found[found.index >= 2]


def _merged(surface: Surface, parts: list[CriticalPoints]) -> CriticalPoints:
    points = CriticalPoints.join(parts)
    points = points[distinct(points.x, merging_radius(surface))]
    return points[points.free_energy.argsort()]


def _noisy(surface: Surface, data: Tensor, sigma: float, count: int, seed: int) -> Tensor:
    """``count`` data samples, drawn without order, with noise of size σ, (count, d)."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    rows = order[torch.arange(count) % len(data)]
    x = surface.flat(data[rows])
    noise = keyed_normal(seed, range(count), (surface.dim,), PROBE, torch.float64).to(x)
    return x + sigma * noise
