"""Bifurcation diagrams: from some critical points on, every branch that folds and branch points
lead to."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from energydiff.errors import UserError
from energydiff.landscape.bifurcations.branches import Branch, CriticalSystem, branch, start
from energydiff.landscape.bifurcations.continuation import Curve, correct, follow
from energydiff.landscape.bifurcations.events import Event, events
from energydiff.landscape.bifurcations.families import Family
from energydiff.landscape.critical import distinct
from energydiff.random import PROBE, keyed_normal

SAME = 1e-4  # events closer than this, in z, are one
DIRECTIONS = 12  # tried for each mode where several vanish at once


@dataclass(frozen=True)
class Diagram:
    """Branches of critical points and the events that join them.

    Attributes:
        branches, events: events know the numbers of their branches.
        parameter: name of p.
    """

    branches: list[Branch]
    events: list[Event]
    parameter: str

    def of_kind(self, *kinds: str) -> list[Event]:
        """Events of some kinds, by p."""
        return sorted((e for e in self.events if e.kind in kinds), key=lambda e: e.parameter)

    def plain(self, states: bool = True) -> dict[str, Any]:
        """As plain data, for JSON; without ``states`` only p, index, V and eigenvalues."""
        names = ["parameter", "index", "free_energy", "eigenvalues", *(["x"] if states else [])]
        return {
            "parameter": self.parameter,
            "branches": [
                {name: getattr(b, name).tolist() for name in names} | {"ends": list(b.ends)}
                for b in self.branches
            ],
            "events": [event.plain() for event in self.events],
        }


def bifurcation_diagram(
    family: Family,
    x: Tensor,
    parameter: float | Tensor,
    bounds: tuple[float, float],
    *,
    longest: float = 0.1,
    unit: float = 1.0,
    points: int = 400,
    most: int = 200,
) -> Diagram:
    """Follow critical points both ways in p, and what branches from them, and so on.

    Args:
        family: landscapes V(·, p), as ``Noise(surface)``.
        x: critical points (B, \\*shape), or close to some.
        parameter: p of each, a number or (B,).
        bounds: least and greatest p.
        longest: step along a branch: of log σ or p, and of x/(unit √d).
        unit: as of :class:`CriticalSystem`.
        points: of each half branch at most.
        most: branches at most; the rest is left out.

    Raises:
        UserError: bounds the wrong way round, or a start that is no critical point.
    """
    if not bounds[0] < bounds[1] or (family.logarithmic and bounds[0] <= 0):
        raise UserError(
            f"bounds of {family.name} must be increasing{' and positive' * family.logarithmic},"
            f" got {bounds[0]:g} and {bounds[1]:g}."
        )
    system = CriticalSystem(family, unit)
    given = torch.as_tensor(parameter, dtype=torch.float64).expand(len(x))
    low, high = system.inner(torch.tensor(bounds, dtype=torch.float64)).tolist()
    grower = _Grower(system, (low, high), longest, points, most)
    grower.start(start(system, x, given))
    return Diagram(grower.branches, [event for event, _ in grower.found], family.name)


class _Grower:
    """Branches so far, in rounds: those of one round are followed together."""

    def __init__(
        self,
        system: CriticalSystem,
        bounds: tuple[float, float],
        longest: float,
        points: int,
        most: int,
    ) -> None:
        self.system, self.bounds, self.longest = system, bounds, longest
        self.points, self.most = points, most
        self.branches: list[Branch] = []
        self.found: list[tuple[Event, Tensor]] = []

    def start(self, z: Tensor) -> None:
        """Follow starts z (B, d + 1) both ways, then all that branches off."""
        up = torch.zeros_like(z)
        up[:, -1] = 1.0
        up = self.system.jacobian(z).kernel(up)
        curves = self._follow(torch.cat([z, z]), torch.cat([up, -up]))
        todo = []
        for ahead, back in zip(curves[: len(z)], curves[len(z) :], strict=True):
            if self._known(ahead.z[0]) is not None:
                continue
            whole = ahead if ahead.end == "closed" else back.joined(ahead)
            ends = (ahead.end if ahead.end == "closed" else back.end, ahead.end)
            todo += self._add(whole, ends)
        while todo:
            todo = self._branch_off(todo)

    def _follow(self, z: Tensor, tangent: Tensor) -> list[Curve]:
        return follow(
            self.system, z, tangent, self.bounds, longest=self.longest, points=self.points
        )

    def _add(self, curve: Curve, ends: tuple[str, str]) -> list[tuple[int, Tensor, Tensor]]:
        """Take a branch in; its branch points that are new, each as number, z and tangent."""
        number = len(self.branches)
        self.branches.append(branch(self.system, curve, ends))
        new = []
        for event, z, tangent in events(self.system, curve):
            if self._meet(z, number) is not None:
                continue
            self.found.append((replace(event, branches=(number,)), z))
            if event.kind == "branch point":
                new.append((len(self.found) - 1, z, tangent))
        return new

    def _meet(self, z: Tensor, number: int) -> int | None:
        """The known event at z, which then knows of the branch."""
        for k, (event, place) in enumerate(self.found):
            if float((place - z).norm()) < SAME:
                members = tuple(sorted({*event.branches, number}))
                self.found[k] = replace(event, branches=members), place
                return k
        return None

    def _branch_off(
        self, todo: Sequence[tuple[int, Tensor, Tensor]]
    ) -> list[tuple[int, Tensor, Tensor]]:
        """Follow all that leaves some branch points; the branch points found on the way."""
        starts = []
        for number, place, tangent in todo:
            z, kind = self._switch(number, place, tangent)
            self.found[number] = replace(self.found[number][0], kind=kind), place
            starts += [(number, place, row) for row in z]
        if not starts:
            return []
        z = torch.stack([row for _, _, row in starts])
        curves = self._follow(z, z - torch.stack([place for _, place, _ in starts]))
        new = []
        for number in dict.fromkeys(number for number, _, _ in starts):
            halves = [c for c, (n, _, _) in zip(curves, starts, strict=True) if n == number]
            for curve, ends in _paired([c for c in halves if len(c) > 1]):
                if len(self.branches) < self.most and self._known(curve.z[0]) is None:
                    member = len(self.branches)
                    new += self._add(curve, ends)
                    event, place = self.found[number]
                    members = tuple(sorted({*event.branches, member}))
                    self.found[number] = replace(event, branches=members), place
        return new

    def _switch(self, number: int, place: Tensor, tangent: Tensor) -> tuple[Tensor, str]:
        """Points (k, d + 1) on the branches that leave a branch point, and of which kind it is."""
        modes = self.system.family.flat(self.found[number][0].modes)
        across = self._across(place, tangent, modes)
        if len(across) > 1:
            mixed = keyed_normal(0, range(DIRECTIONS * len(across)), (len(across),), PROBE)
            across = torch.cat([across, mixed.to(across) @ across])
            across = across / across.norm(dim=1, keepdim=True)
        size = self.longest / 8
        z = torch.cat([place + size * across, place - size * across])
        fixed = torch.cat([across, across])
        z, fixed = self._near(*self._corrected(z, fixed), place, size)
        if len(modes) == 1:
            shifts = (z[:, -1] - place[-1]).tolist()
            if abs(float(tangent[-1])) < 1e-3:
                return z, "pitchfork"
            if len(shifts) < 2:
                return z, "branch point"
            return z, "pitchfork" if shifts[0] * shifts[1] > 0 else "transcritical"
        # Once more at one distance along what was found, so that each branch is found once.
        fixed = z - place
        fixed -= (fixed @ tangent)[:, None] * tangent
        fixed = fixed / fixed.norm(dim=1, keepdim=True)
        z, fixed = self._near(*self._corrected(place + size * fixed, fixed), place, size)
        return z[distinct(z, 0.02 * size).to(z.device)], "branch point"

    def _across(self, place: Tensor, tangent: Tensor, modes: Tensor) -> Tensor:
        """Directions (m, d + 1) of the kernel of J that are ⟂ to the branch's own."""
        zero, last = modes.new_zeros(len(modes), 1), torch.zeros_like(place)
        last[-1] = 1.0
        kernel = self.system.jacobian(place[None]).kernel(last[None])
        basis = [tangent]
        for candidate in torch.cat([torch.cat([modes, zero], 1), kernel]):
            for b in (*basis, *basis):
                candidate = candidate - (candidate @ b) * b
            if float(candidate.norm()) > 0.1 and len(basis) <= len(modes):
                basis.append(candidate / candidate.norm())
        return torch.stack(basis[1:]) if len(basis) > 1 else modes.new_zeros(0, len(place))

    def _corrected(self, z: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
        z, solved, _ = correct(self.system, z, fixed)
        return z[solved.to(z.device)], fixed[solved.to(z.device)]

    def _near(self, z: Tensor, fixed: Tensor, place: Tensor, size: float) -> tuple[Tensor, Tensor]:
        near = (z - place).norm(dim=1) < 6 * size
        return z[near], fixed[near]

    def _known(self, z: Tensor) -> int | None:
        """Number of a branch that passes through the solution z (d + 1,)."""
        for number, known in enumerate(self.branches):
            curve = known.curve
            distance = (curve.z - z).norm(dim=1)
            i = int(distance.argmin())
            if float(distance[i]) > 2 * self.longest:
                continue
            t = curve.tangent[i]
            along = float((z - curve.z[i]) @ t)
            if (i == 0 and along < -1e-9) or (i == len(curve) - 1 and along > 1e-9):
                continue
            guess = curve.z[i] + along * t
            there, solved, _ = correct(self.system, guess[None], t[None])
            if bool(solved) and float((there[0] - z).norm()) < 1e-6:
                return number
        return None


def _paired(halves: list[Curve]) -> list[tuple[Curve, tuple[str, str]]]:
    """Curves that leave a branch point, those that leave it opposite ways joined through it."""
    curves, left = [], list(halves)
    while left:
        ahead = left.pop(0)
        cosines = [float(ahead.tangent[0] @ other.tangent[0]) for other in left]
        if cosines and min(cosines) < -0.5:
            back = left.pop(cosines.index(min(cosines)))
            curves.append((back.joined(ahead, shared=False), (back.end, ahead.end)))
        else:
            curves.append((ahead, ("branch point", ahead.end)))
    return curves
