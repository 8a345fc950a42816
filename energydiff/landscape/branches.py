"""Branches of critical points of V(·, p), and the points where their number or index changes.

A branch solves ∇V(x, p) = 0. Along it, with unit tangent t:

    fold                     t_p changes sign and an eigenvalue of ∇²V with it
    branch point             an eigenvalue changes sign and t_p does not; or t_p alone
      transcritical, pitchfork   of one eigenvalue: p is an odd or an even function along the branch
                                 that crosses (Kuznetsov 2004, ch. 10)
"""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from energydiff.errors import UserError
from energydiff.landscape.continuation import (
    Curve,
    Dense,
    Jacobian,
    Products,
    System,
    correct,
    locate,
)
from energydiff.landscape.critical import DENSE, spectrum
from energydiff.landscape.families import Family

KEPT = 4  # lowest eigenvalues shown of each point


class CriticalSystem(System):
    """∇V(x, p)/(√d u) = 0 in z = (x/(√d u), q), with q = log p where the family says so.

    So a length in z is one per number in a sample, whatever d.

    Args:
        unit: u, a length on which x varies, as large as the spread of the data.
    """

    def __init__(self, family: Family, unit: float = 1.0) -> None:
        self.family, self.scale = family, unit * family.dim**0.5

    def pack(self, x: Tensor, p: Tensor) -> Tensor:
        """z (B, d + 1) of samples (B, \\*shape) and parameters (B,)."""
        flat = self.family.flat(x) / self.scale
        return torch.cat([flat, self.inner(p.to(flat))[:, None]], 1)

    def inner(self, p: Tensor) -> Tensor:
        return p.log() if self.family.logarithmic else p

    def state(self, z: Tensor) -> Tensor:
        """x, (B, d)."""
        return z[:, :-1] * self.scale

    def parameter(self, z: Tensor) -> Tensor:
        """p, (B,)."""
        return z[:, -1].exp() if self.family.logarithmic else z[:, -1]

    def residual(self, z: Tensor) -> Tensor:
        return self.family.gradient(self.state(z), self.parameter(z))[1] / self.scale

    def jacobian(self, z: Tensor) -> Jacobian:
        x, p = self.state(z), self.parameter(z)
        column = self.family.parameter_gradient(x, p) / self.scale
        column = p[:, None] * column if self.family.logarithmic else column
        if self.family.dim > DENSE:
            return Products(self.family.product(x, p), column)
        return Dense(torch.cat([self.family.hessian(x, p), column[:, :, None]], 2))

    def record(self, z: Tensor, jacobian: Jacobian) -> Tensor:
        """V and eigenvalues from the lowest up: all of them up to 256 dimensions."""
        x, p = self.state(z), self.parameter(z)
        if isinstance(jacobian, Dense):
            values = torch.linalg.eigvalsh(jacobian.matrix[:, :, :-1])
        else:
            values = spectrum(self.family, x, p)[0]
        return torch.cat([self.family.gradient(x, p)[0][:, None], values], 1)

    def orientation(self, record: Tensor, tangent: Tensor) -> Tensor:
        """(−1)^index sign t_p, the sign of det [J; t] (Allgower & Georg 2003, ch. 8)."""
        odd = (record[:, 1:] < 0).sum(1) % 2
        return (1 - 2 * odd) * tangent[:, -1].sign()


@dataclass(frozen=True)
class Branch:
    """m points of a branch of critical points; float64 on the CPU.

    Attributes:
        x: (m, \\*shape).
        parameter: p, as σ, (m,).
        index: Morse index, (m,) int64.
        free_energy: V, (m,).
        eigenvalues: the lowest of ∇²V, (m, k).
        ends: why it ends where it begins and where it ends: "bound" of p, "length", "closed",
            "stuck", or "branch point" where it begins.
        curve: the same in the coordinates of the continuation, with tangents.
    """

    x: Tensor
    parameter: Tensor
    index: Tensor
    free_energy: Tensor
    eigenvalues: Tensor
    ends: tuple[str, str]
    curve: Curve

    def __len__(self) -> int:
        return len(self.x)

    def at(self, p: float) -> Tensor:
        """States where the branch crosses p, linear between its points, (n, \\*shape)."""
        before, after = self.parameter[:-1] - p, self.parameter[1:] - p
        steps = ((before * after <= 0) & (before != after)).nonzero()[:, 0]
        share = before[steps] / (before[steps] - after[steps])
        share = share.view(-1, *[1] * (self.x.ndim - 1))
        return self.x[steps] + share * (self.x[steps + 1] - self.x[steps])


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


def branch(system: CriticalSystem, curve: Curve, ends: tuple[str, str]) -> Branch:
    """A curve in the coordinates of samples."""
    return Branch(
        x=system.family.shaped(system.state(curve.z)).cpu(),
        parameter=system.parameter(curve.z).cpu(),
        index=(curve.record[:, 1:] < 0).sum(1).cpu(),
        free_energy=curve.record[:, 0].cpu(),
        eigenvalues=curve.record[:, 1 : 1 + KEPT].cpu(),
        ends=ends,
        curve=curve,
    )


def events(system: CriticalSystem, curve: Curve) -> list[tuple[Event, Tensor, Tensor]]:
    """Folds and branch points along a curve, each with its z (d + 1,) and tangent."""
    index = (curve.record[:, 1:] < 0).sum(1)
    turns = curve.tangent[:-1, -1] * curve.tangent[1:, -1] < 0
    changes = index[:-1] != index[1:]
    found = []
    for i in (turns | changes).nonzero()[:, 0].tolist():
        places = []  # (z, tangent, modes that vanish, whether t_p does)
        if turns[i]:
            places.append((*locate(system, curve, i, lambda z, t: float(t[-1])), 0, True))
        low, high = sorted((int(index[i]), int(index[i + 1])))
        for number in range(low, high):
            z, t = locate(system, curve, i, lambda z, t, k=number: _eigenvalue(system, z, k))
            same = [k for k, place in enumerate(places) if float((place[0] - z).norm()) < 1e-5]
            if same:
                places[same[0]] = (*places[same[0]][:2], places[same[0]][2] + 1, places[same[0]][3])
            else:
                places.append((z, t, 1, False))
        size = float(curve.record[i, 1:].abs().max())
        found += [(_event(system, z, modes, turn, size), z, t) for z, t, modes, turn in places]
    return found


def _eigenvalue(system: CriticalSystem, z: Tensor, number: int) -> float:
    z = z[None]
    return float(system.record(z, system.jacobian(z))[0, 1 + number])


def _event(system: CriticalSystem, z: Tensor, modes: int, turn: bool, size: float) -> Event:
    """What is at z, where ``modes`` eigenvalues, of up to ``size`` nearby, change sign."""
    x, p = system.state(z[None]), system.parameter(z[None])
    values, vectors = spectrum(system.family, x, p)
    softest = values[0].abs().argsort()[: max(modes, 1)]
    null = vectors[0][softest]
    kind = "fold" if turn and modes == 1 else "branch point"
    return Event(
        kind if float(values[0][softest[-1]].abs()) < 1e-4 * size else "gap",
        float(p),
        system.family.shaped(x)[0].cpu(),
        system.family.shaped(null).cpu(),
        quadratic_coefficient(system.family, x, p, null[:1]),
    )


def quadratic_coefficient(family: Family, x: Tensor, p: Tensor, v: Tensor) -> float:
    """⟨v, ∇³V v v⟩ along a unit v (1, d) at x (1, d), by central differences of ∇²V v."""
    step = 1e-4 * max(1e-2, float(x.norm()))
    ahead, behind = (family.product(x + way * step * v, p)(v) for way in (1, -1))
    return float(((ahead - behind) * v).sum() / (2 * step))


def start(system: CriticalSystem, x: Tensor, p: Tensor) -> Tensor:
    """z (B, d + 1) of critical points, corrected at their p; ``UserError`` where there is none."""
    z = system.pack(x, p)
    fixed = torch.zeros_like(z)
    fixed[:, -1] = 1.0
    z, solved, _ = correct(system, z, fixed)
    if not bool(solved.all()):
        worst = int((~solved).nonzero()[0])
        raise UserError(
            f"start {worst} is no critical point at {system.family.name} = {float(p[worst]):g}:"
            " find one with newton() first."
        )
    return z
