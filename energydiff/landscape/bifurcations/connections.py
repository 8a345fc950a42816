"""Saddle–saddle connections as σ varies: the bifurcations that no eigenvalue foretells.

A branch of a saddle's unstable manifold ends in a minimum. At isolated σ the minimum changes
without a fold: there it ends on another saddle (a gradient field breaks structural stability
generically by folds and by these alone). Symmetry can hold such a connection over a
whole interval of σ: the branch itself ends on a saddle, and in either minimum when nudged.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from energydiff.errors import UserError
from energydiff.landscape.bifurcations.branches import Branch, CriticalSystem, start
from energydiff.landscape.bifurcations.diagram import Diagram
from energydiff.landscape.bifurcations.families import Noise
from energydiff.landscape.critical import CriticalPoints, examine
from energydiff.landscape.morse import morse_graph
from energydiff.landscape.surface import Surface
from energydiff.progress import with_progress


@dataclass(frozen=True)
class Connection:
    """A branch of one saddle's unstable manifold that ends on another saddle.

    Attributes:
        kind: "crossing" at one σ, or "persistent" over an interval.
        sigma: least and greatest σ: of the bracket, or of the interval.
        saddle, target: numbers of their branches in the diagram; −1 for a target outside it.
        minima: branches of the minima that the manifold ends in below and above a crossing.
        x: the saddle in the middle, (\\*shape).
    """

    kind: str
    sigma: tuple[float, float]
    saddle: int
    target: int
    minima: tuple[int, int] | None
    x: Tensor


@dataclass(frozen=True)
class _Piece:
    """Steps ``first`` to ``last`` of a branch, along which σ moves one way and the index stays."""

    number: int
    branch: Branch
    first: int
    last: int
    limits: tuple[float, float]  # least and greatest σ with the events that it ends at

    @property
    def index(self) -> int:
        return int(self.branch.index[self.first])

    @property
    def range(self) -> tuple[float, float]:
        """Least and greatest σ of its points."""
        low, high = sorted(self.branch.parameter[[self.first, self.last + 1]].tolist())
        return low, high

    def covers(self, sigma: float) -> bool:
        return self.range[0] <= sigma <= self.range[1]

    def near(self, sigma: float) -> Tensor:
        """x at σ, interpolated, (\\*shape)."""
        sigmas = self.branch.parameter[self.first : self.last + 2]
        place = torch.searchsorted(sigmas, sigma) if sigmas[-1] > sigmas[0] else None
        if place is None:
            place = len(sigmas) - torch.searchsorted(sigmas.flip(0), sigma)
        step = min(max(int(place) - 1, 0), len(sigmas) - 2)
        return self.branch.between(self.first + step, sigma)


@dataclass(frozen=True)
class _Seen:
    """What the two branches of a saddle do at one σ."""

    ends: list[int]  # pieces of the minima, −1 unknown
    hits: list[int]  # pieces of saddles
    flips: list[bool]
    mode: Tensor


def saddle_connections(
    surface: Surface, diagram: Diagram, *, levels: int = 24, tolerance: float = 1e-4
) -> list[Connection]:
    """Connections from the index-1 saddles of a diagram in σ, bisected to ``tolerance`` in σ.

    Args:
        diagram: of ``Noise(surface)``, with the minima that the saddles lead down to.
        levels: noise levels at which destinations are compared; two crossings of one branch
            between neighbours cancel.
    """
    if diagram.parameter != "sigma":
        raise UserError(f"connections are followed in sigma, not in {diagram.parameter}.")
    pieces = [p for n in range(len(diagram.branches)) for p in _pieces(diagram, n)]
    watch = _Watch(surface, [p for p in pieces if p.index < 2])
    low = min(p.range[0] for p in watch.pieces)
    high = max(p.range[1] for p in watch.pieces)
    grid = np.geomspace(low, high, levels).tolist()
    ends = [s for p in watch.pieces if p.index == 1 for s in p.range]
    grid = sorted({*grid, *ends})
    seen: list[dict[int, _Seen]] = []
    for sigma in with_progress(grid, len(grid), "Following saddles down"):
        seen.append(watch.look(sigma, seen[-1] if seen else {}))
    found = []
    for number in range(len(watch.pieces)):
        for way in (0, 1):
            history = [
                (s, look[number]) for s, look in zip(grid, seen, strict=True) if number in look
            ]
            found += watch.crossings(number, way, history, tolerance)
            found += watch.intervals(number, way, history, tolerance)
    return sorted(found, key=lambda c: c.sigma)


class _Watch:
    """Saddles and minima of a diagram, looked at one σ at a time."""

    def __init__(self, surface: Surface, pieces: list[_Piece]) -> None:
        self.surface, self.pieces = surface, pieces
        self.system = CriticalSystem(Noise(surface))

    def points(self, sigma: float, index: int) -> tuple[list[int], CriticalPoints]:
        """Numbers of the pieces of an index at σ, and the points."""
        there = [n for n, p in enumerate(self.pieces) if p.index == index and p.covers(sigma)]
        shape = self.surface.shape
        x = [self.pieces[n].near(sigma) for n in there]
        states = torch.stack(x) if x else torch.zeros(0, *shape, dtype=torch.float64)
        z = start(self.system, states, torch.full((len(x),), sigma, dtype=torch.float64))
        return there, examine(self.surface, self.system.state(z), sigma)

    def look(self, sigma: float, before: dict[int, _Seen]) -> dict[int, _Seen]:
        """By number of a piece, with the two ways in the order that they had ``before``."""
        low, minima = self.points(sigma, 0)
        numbers, saddles = self.points(sigma, 1)
        if not numbers or not low:
            return {}
        graph = morse_graph(self.surface, minima, saddles, sigma)
        looks = {}
        for k, number in enumerate(numbers):
            mode = saddles.modes[k, 0].flatten()
            turned = number in before and float(mode @ before[number].mode) < 0
            order = [1, 0] if turned else [0, 1]
            ends, hits = graph.ends[k].tolist(), graph.hits[k].tolist()
            looks[number] = _Seen(
                [low[ends[w]] if 0 <= ends[w] < len(low) else -1 for w in order],
                [numbers[hits[w]] if hits[w] >= 0 else -1 for w in order],
                [bool(graph.flips[k, w]) for w in order],
                -mode if turned else mode,
            )
        return looks

    def bisect(
        self,
        number: int,
        below: tuple[float, _Seen],
        above: tuple[float, _Seen],
        tolerance: float,
        same: Callable[[_Seen, _Seen], bool],
    ) -> tuple[tuple[float, _Seen], tuple[float, _Seen]]:
        """A bracket within ``tolerance`` of where what is seen stops to be the ``same``."""
        while above[0] - below[0] > tolerance:
            middle = 0.5 * (below[0] + above[0])
            look = self.look(middle, {number: below[1]})[number]
            if same(look, below[1]):
                below = middle, look
            else:
                above = middle, look
        return below, above

    def crossings(
        self, number: int, way: int, history: list[tuple[float, _Seen]], tolerance: float
    ) -> list[Connection]:
        found = []
        for below, above in pairwise(history):
            first, second = below[1].ends[way], above[1].ends[way]
            if below[1].flips[way] or above[1].flips[way] or min(first, second) < 0:
                continue
            lasting = all(
                self.pieces[n].covers(s) for n in (first, second) for s in (below[0], above[0])
            )
            if first == second or not lasting:
                continue
            (low, look), (high, after) = self.bisect(
                number, below, above, tolerance, lambda a, b: a.ends[way] == b.ends[way]
            )
            # Next to a branch point the nudge of the first look may step over what it looks for.
            (one, near), (other, _) = (
                self.down(number, way, sigma, seen) for sigma, seen in ((low, look), (high, after))
            )
            if one != other and one >= 0 and other >= 0:
                minima = (self.pieces[one].number, self.pieces[other].number)
                target = self.pieces[near].number if near >= 0 else -1
                found.append(self.connection("crossing", (low, high), number, target, minima))
        return found

    def intervals(
        self, number: int, way: int, history: list[tuple[float, _Seen]], tolerance: float
    ) -> list[Connection]:
        found, limits = [], self.pieces[number].limits
        flips = [look.flips[way] for _, look in history]
        first = 0
        while first < len(flips):
            if not flips[first]:
                first += 1
                continue
            last = first
            while last + 1 < len(flips) and flips[last + 1]:
                last += 1
            low, high = limits
            if first > 0:
                low = self.bisect(
                    number, history[first - 1], history[first], tolerance, _alike(way)
                )[1][0]
            if last + 1 < len(flips):
                high = self.bisect(
                    number, history[last], history[last + 1], tolerance, _alike(way)
                )[0][0]
            hits = {look.hits[way] for _, look in history[first : last + 1]} - {-1}
            target = self.pieces[min(hits)].number if hits else -1
            if high - low > 2 * tolerance:  # what is shorter belongs to the branch point it ends at
                found.append(self.connection("persistent", (low, high), number, target, None))
            first = last + 1
        return found

    def connection(
        self,
        kind: str,
        sigma: tuple[float, float],
        number: int,
        target: int,
        minima: tuple[int, int] | None,
    ) -> Connection:
        piece = self.pieces[number]
        middle = piece.near(0.5 * (sigma[0] + sigma[1]))
        return Connection(kind, sigma, piece.number, target, minima, middle)

    def down(self, number: int, way: int, sigma: float, look: _Seen) -> tuple[int, int]:
        """Pieces of the minimum where a branch of the unstable manifold ends, by an accurate
        solver, and of the saddle that it passes closest to; −1 for none."""
        low, minima = self.points(sigma, 0)
        numbers, saddles = self.points(sigma, 1)
        own = numbers.index(number)
        x = self.surface.flat(saddles.x)
        first = x[own] + 1e-3 * sigma * (1 if way == 0 else -1) * look.mode.to(x)

        def fall(_: float, y: np.ndarray) -> np.ndarray:
            slope = self.surface.gradient(torch.from_numpy(y)[None].to(x), sigma)[1]
            return -slope[0].cpu().numpy()

        path = solve_ivp(fall, (0.0, 1e4), first.cpu().numpy(), method="LSODA", rtol=1e-8).y.T
        path = torch.from_numpy(path)
        to_minima = (path[-1] - minima.x.flatten(1)).norm(dim=1)
        end = low[int(to_minima.argmin())] if float(to_minima.min()) < 1e-3 * sigma else -1
        to_saddles = torch.cdist(path, saddles.x.flatten(1)).amin(0)
        to_saddles[own] = torch.inf
        other = int(to_saddles.argmin())
        return end, numbers[other] if len(numbers) > 1 else -1


def _alike(way: int) -> Callable[[_Seen, _Seen], bool]:
    return lambda a, b: a.flips[way] == b.flips[way]


def _pieces(diagram: Diagram, number: int) -> list[_Piece]:
    """The runs of steps of a branch on which σ moves one way and the index stays."""
    branch, pieces = diagram.branches[number], []
    index, up = branch.index.tolist(), (branch.parameter.diff() > 0).tolist()
    runs = groupby(range(len(up)), lambda i: (index[i] == index[i + 1], up[i]))
    for (alike, rises), group in runs:
        steps = list(group)
        if alike:
            ends = [_limit(diagram, number, row) for row in (steps[0], steps[-1] + 1)]
            limits = (ends[0], ends[1]) if rises else (ends[1], ends[0])
            pieces.append(_Piece(number, branch, steps[0], steps[-1], limits))
    return pieces


def _limit(diagram: Diagram, number: int, row: int) -> float:
    """σ of the event beyond the end ``row`` of a piece, or of that end of the branch."""
    branch = diagram.branches[number]
    events = [e for e in diagram.events if number in e.branches]
    if row in (0, len(branch) - 1) or not events:
        return float(branch.parameter[row])
    return min(events, key=lambda e: float((e.x - branch.x[row]).norm())).parameter
