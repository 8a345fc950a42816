"""Branches of critical points of V(·, p): curves of solutions of ∇V(x, p) = 0."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from energydiff.errors import UserError
from energydiff.landscape.bifurcations.continuation import (
    Curve,
    Dense,
    Jacobian,
    Products,
    System,
    correct,
)
from energydiff.landscape.bifurcations.families import Family
from energydiff.landscape.critical import DENSE, spectrum

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
        column = self.column(x, p)
        if self.family.dim > DENSE:
            return Products(self.family.product(x, p), column)
        return Dense(torch.cat([self.family.hessian(x, p), column[:, :, None]], 2))

    def column(self, x: Tensor, p: Tensor) -> Tensor:
        """The derivative of the residual by q, (B, d)."""
        column = self.family.parameter_gradient(x, p) / self.scale
        return p[:, None] * column if self.family.logarithmic else column

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
        curve: the same in the coordinates of :class:`CriticalSystem`, with tangents.
        scale, logarithmic: what those are of x and p.
    """

    x: Tensor
    parameter: Tensor
    index: Tensor
    free_energy: Tensor
    eigenvalues: Tensor
    ends: tuple[str, str]
    curve: Curve
    scale: float
    logarithmic: bool

    def __len__(self) -> int:
        return len(self.x)

    def at(self, p: float) -> Tensor:
        """States where the branch takes p, interpolated with its tangents, (n, \\*shape)."""
        before, after = self.parameter[:-1] - p, self.parameter[1:] - p
        steps = ((before * after <= 0) & (before != after)).nonzero()[:, 0].tolist()
        return torch.stack([self.between(i, p) for i in steps]) if steps else self.x[:0]

    def between(self, i: int, p: float) -> Tensor:
        """The state at a p that lies between points i and i + 1, (\\*shape)."""
        z = self.curve.at(i, math.log(p) if self.logarithmic else p)
        return (z[:-1] * self.scale).view(self.x.shape[1:]).cpu()


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
        scale=system.scale,
        logarithmic=system.family.logarithmic,
    )


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
