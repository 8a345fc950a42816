"""The Morse graph: minima, and the index-1 saddles that join them.

Down from a saddle lead the two branches of its unstable manifold, one each way along its negative
mode; each ends in a minimum, unless the landscape is not structurally stable and it ends on another
saddle. Barriers and the order in which minima merge as the level of V rises (the disconnectivity
graph, Becker & Karplus 1997) follow.
"""

from dataclasses import dataclass
from typing import Any

import networkx
import torch
from scipy.cluster.hierarchy import DisjointSet
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

NUDGE = 0.02, 0.5  # from a saddle along its negative mode, least and most, units of σ
FALL = 1e-3  # of V by that nudge, units of σ²: a flat saddle is left by a longer one
TILT = 0.002  # across it, to see whether a branch holds, units of σ


@dataclass(frozen=True)
class Merge:
    """Where two groups of minima become one as V rises.

    Attributes:
        level: V of the saddle.
        saddle: its number.
        groups: the lowest minimum of either group; of the first, V is lower.
    """

    level: float
    saddle: int
    groups: tuple[int, int]


@dataclass(frozen=True)
class MorseGraph:
    """Minima joined by index-1 saddles at one σ.

    Attributes:
        minima: of index 0.
        saddles: of index 1.
        ends: numbers of the minima that each saddle's branches end in, (n, 2); −1 for none.
        hits: numbers of the saddles that branches end on instead, (n, 2); −1 for none.
        flips: whether a branch ends elsewhere when it is nudged to either side, (n, 2).
    """

    minima: CriticalPoints
    saddles: CriticalPoints
    ends: Tensor
    hits: Tensor
    flips: Tensor

    @property
    def barriers(self) -> Tensor:
        """V of a saddle over V of the minimum at either end, (n, 2); NaN without one."""
        height = self.saddles.free_energy[:, None] - self.minima.free_energy[self.ends.clamp(min=0)]
        return torch.where(self.ends >= 0, height, torch.nan)

    def merges(self) -> list[Merge]:
        """From the lowest level up; fewer than minima − 1 where the graph is not connected."""
        value, groups = self.minima.free_energy, DisjointSet(range(len(self.minima)))
        lowest = dict(enumerate(range(len(self.minima))))
        merges = []
        for saddle in self.saddles.free_energy.argsort().tolist():
            one, other = self.ends[saddle].tolist()
            if min(one, other) < 0 or groups.connected(one, other):
                continue
            a, b = sorted((lowest[groups[one]], lowest[groups[other]]), key=lambda m: value[m])
            groups.merge(one, other)
            lowest[groups[one]] = a
            merges.append(Merge(float(self.saddles.free_energy[saddle]), saddle, (a, b)))
        return merges

    def components(self) -> list[list[int]]:
        """Numbers of the minima that saddles join, group by group, the largest first."""
        groups = networkx.connected_components(self.network())
        return sorted((sorted(group) for group in groups), key=len, reverse=True)

    def network(self) -> networkx.MultiGraph:
        """For networkx and what it writes: a node for each minimum, an edge for each saddle."""
        graph = networkx.MultiGraph()
        for i, (v, e) in enumerate(zip(*_values(self.minima), strict=True)):
            graph.add_node(i, V=v, E=e)
        heights = self.barriers.tolist()
        for i, (v, e) in enumerate(zip(*_values(self.saddles), strict=True)):
            one, other = self.ends[i].tolist()
            if min(one, other) >= 0:
                a, b = heights[i]
                graph.add_edge(
                    one, other, saddle=i, V=v, E=e, barrier_from_first=a, barrier_from_second=b
                )
        return graph

    def node_link(self) -> dict[str, Any]:
        """As plain data, of networkx's node-link format."""
        data: dict[str, Any] = networkx.node_link_data(self.network(), edges="edges")
        return data


def morse_graph(
    surface: Surface,
    minima: CriticalPoints,
    saddles: CriticalPoints,
    sigma: float,
    before: MorseGraph | None = None,
) -> MorseGraph:
    """Follow both branches of every index-1 saddle down; minima met for the first time are added.

    Each branch is followed three times: as it is, and nudged to either side along the softest mode
    that leads up.

    Args:
        before: a graph of the same minima that these saddles are added to.
    """
    coarse = surface.coarse
    x = coarse.flat(saddles.x)
    modes = saddles.modes.flatten(2).to(x)
    down, across = modes[:, 0], modes[:, min(1, modes.shape[1] - 1)]
    across = torch.zeros_like(down) if surface.dim == 1 else across
    bend = saddles.eigenvalues[:, :1].to(x).abs()
    nudge = (2 * FALL / bend).sqrt().clamp(*NUDGE) * down
    starts = torch.stack(
        [
            x + sigma * (way * nudge + TILT * side * across)
            for way in (1, -1)
            for side in (0, 1, -1)
        ],
        1,
    ).flatten(0, 1)
    low = descend(coarse, starts, sigma, eta=0.2, steps=300)
    tolerance = TOLERANCE if coarse is surface else COARSE
    search = newton(coarse, low, sigma, 0, tolerance=tolerance, task="Following branches down")
    end, ended = surface.shaped(search.x.cpu()).double(), search.converged.cpu()
    if before is not None:
        saddles = CriticalPoints.join([before.saddles, saddles])
    minima = _with_new(surface, minima, saddles, end[ended], sigma)
    radius = (1 if coarse is surface else 10) * merging_radius(surface)

    def which(points: CriticalPoints) -> Tensor:
        distance, number = nearest(end, points.x)
        return torch.where((distance <= radius) & ended, number, -1).view(-1, 2, 3)

    ends, hits = which(minima), which(saddles)
    flips = (ends[..., 1] != ends[..., 2]) & (ends[..., 1:] >= 0).all(2)
    parts = [ends[..., 0], hits[..., 0], flips]
    if before is not None:
        earlier = [before.ends, before.hits, before.flips]
        parts = [torch.cat(pair) for pair in zip(earlier, parts, strict=True)]
    return MorseGraph(minima, saddles, *parts)


def _with_new(
    surface: Surface, minima: CriticalPoints, saddles: CriticalPoints, x: Tensor, sigma: float
) -> CriticalPoints:
    """The minima, and those that are near x (n, \\*shape) and neither among them nor a saddle."""
    known = torch.cat([minima.x, saddles.x])
    others = x[nearest(x, known)[0] > 10 * merging_radius(surface)]
    if not len(others):
        return minima
    found = critical_points(surface, surface.flat(others), sigma, 0, "Refining new minima")
    found = found[nearest(found.x, minima.x)[0] > merging_radius(surface)]
    return CriticalPoints.join([minima, found.of_index(0)])


def _values(points: CriticalPoints) -> tuple[list[float], list[float]]:
    return points.free_energy.tolist(), points.energy.tolist()
