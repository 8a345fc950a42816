"""Where the number of critical points of V(·, p) or their index changes.

Along a branch, with unit tangent t:

    fold             t_p changes sign and an eigenvalue of ∇²V with it
    branch point     an eigenvalue changes sign and t_p does not, or t_p does and none of them:
      pitchfork        p is an even function along one of two branches that cross
      transcritical    it is even along neither

(Kuznetsov 2004, chs. 3, 7). Each is located by Brent's method along the branch, a branch point of
one mode then by a system of which it is a regular solution.
"""

from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from energydiff.landscape.bifurcations.branches import CriticalSystem
from energydiff.landscape.bifurcations.continuation import Curve, locate
from energydiff.landscape.bifurcations.families import Family
from energydiff.landscape.bifurcations.singular import branch_point
from energydiff.landscape.critical import spectrum

POLISHED = 64  # dimensions up to which branch points are solved for as such


@dataclass(frozen=True)
class Event:
    """A fold or a branch point.

    Attributes:
        kind: "fold", "pitchfork", "transcritical", "branch point" (of several modes, or one from
            which nothing was found to branch) or "gap": two branches so close that a step went from
            one to the other, as of a pitchfork not quite symmetric.
        parameter: p there.
        x: (\\*shape).
        modes: unit null vectors of ∇²V, (m, \\*shape).
        quadratic: ⟨v, ∇³V v v⟩ of the first mode v; 0 at a cusp or pitchfork.
        branches: numbers of the branches that meet here.
    """

    kind: str
    parameter: float
    x: Tensor
    modes: Tensor
    quadratic: float
    branches: tuple[int, ...] = ()

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {n: v.tolist() if isinstance(v, Tensor) else v for n, v in values.items()}


@dataclass
class _Place:
    """Where something was located."""

    z: Tensor
    tangent: Tensor
    modes: int  # eigenvalues that change sign
    turn: bool  # t_p changes sign


def events(system: CriticalSystem, curve: Curve) -> list[tuple[Event, Tensor, Tensor]]:
    """Folds and branch points along a curve, each with its z (d + 1,) and the curve's tangent.

    The branch point at the curve's joint is left out.
    """
    index = (curve.record[:, 1:] < 0).sum(1)
    turns = curve.tangent[:-1, -1] * curve.tangent[1:, -1] < 0
    changes = index[:-1] != index[1:]
    found = []
    for i in (turns | changes).nonzero()[:, 0].tolist():
        if i == curve.joint:
            continue
        places: list[_Place] = []
        if turns[i]:
            z, t = locate(system, curve, i, lambda z, t: float(t[-1]))
            places.append(_Place(z, t, 0, True))
        low, high = sorted((int(index[i]), int(index[i + 1])))
        for number in range(low, high):
            z, t = locate(system, curve, i, _Eigenvalue(system, number))
            same = next((place for place in places if float((place.z - z).norm()) < 1e-5), None)
            if same is None:
                places.append(_Place(z, t, 1, False))
            else:
                same.modes += 1
        size = float(curve.record[i, 1:].abs().max())
        found += [_event(system, place, size) for place in places]
    return found


@dataclass
class _Eigenvalue:
    """An eigenvalue of ∇²V by its place from the lowest up."""

    system: CriticalSystem
    number: int

    def __call__(self, z: Tensor, tangent: Tensor) -> float:
        z = z[None]
        return float(self.system.record(z, self.system.jacobian(z))[0, 1 + self.number])


def _event(system: CriticalSystem, place: _Place, size: float) -> tuple[Event, Tensor, Tensor]:
    """What is at a place near which eigenvalues are up to ``size``."""
    z, tangent = place.z, place.tangent
    values = spectrum(system.family, system.state(z[None]), system.parameter(z[None]))[0]
    # Modes that change sign both ways at once do not show in the index.
    count = max(place.modes, 1, int((values.abs() < 1e-6 * size).sum()))
    softest, null = _softest(system, z, count)
    kind = "fold" if place.turn and place.modes == 1 else "branch point"
    if kind == "branch point" and count == 1 and system.family.dim <= POLISHED:
        solved = branch_point(system, z, null[0])
        if solved is not None and abs(solved[1]) < 1e-8:
            z = solved[0]
            tangent = system.jacobian(z[None]).kernel(tangent[None])[0]
            softest, null = _softest(system, z, count)
    x, p = system.state(z[None]), system.parameter(z[None])
    event = Event(
        kind if softest < 1e-5 * size else "gap",
        float(p),
        system.family.shaped(x)[0].cpu(),
        system.family.shaped(null).cpu(),
        quadratic_coefficient(system.family, x, p, null[:1]),
    )
    return event, z, tangent


def _softest(system: CriticalSystem, z: Tensor, count: int) -> tuple[float, Tensor]:
    """The ``count`` eigenvalues closest to 0: the largest size, and their vectors (count, d)."""
    values, vectors = spectrum(system.family, system.state(z[None]), system.parameter(z[None]))
    order = values[0].abs().argsort()[:count]
    return float(values[0][order[-1]].abs()), vectors[0][order]


def quadratic_coefficient(family: Family, x: Tensor, p: Tensor, v: Tensor) -> float:
    """⟨v, ∇³V v v⟩ along a unit v (1, d) at x (1, d), by central differences of ∇²V v."""
    step = 1e-4 * max(1e-2, float(x.norm()))
    ahead, behind = (family.product(x + way * step * v, p)(v) for way in (1, -1))
    return float(((ahead - behind) * v).sum() / (2 * step))
