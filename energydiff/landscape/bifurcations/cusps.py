"""Folds of V(·, σ) as a second number varies, and the cusps where two of them meet.

A fold solves ∇V = 0, H v = 0, ‖v‖ = 1, and is regular there as a cusp is (Griewank & Reddien 1984);
at a cusp ⟨v, ∇³V v v⟩ = 0 (Kuznetsov 2004, §8.2). Newton's matrices are central differences of
2d + 2 numbers: for up to some hundred dimensions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from energydiff.energies.base import Energy
from energydiff.errors import UserError
from energydiff.landscape.bifurcations.branches import CriticalSystem
from energydiff.landscape.bifurcations.continuation import (
    Dense,
    Jacobian,
    System,
    correct,
    follow,
    locate,
)
from energydiff.landscape.bifurcations.events import quadratic_coefficient
from energydiff.landscape.bifurcations.families import Noise
from energydiff.landscape.bifurcations.singular import differences
from energydiff.landscape.critical import spectrum
from energydiff.landscape.surface import Surface


class FoldSystem(System):
    """Folds in (x, σ) as another number p varies: w = (x/(√d u), log σ, v, p), 2d + 2 numbers.

    Its record is ⟨v, ∇³V v v⟩, which is 0 at a cusp.

    Args:
        energies: from p to an energy; called once for every p that is visited.
    """

    def __init__(self, energies: Callable[[float], Energy], start: float, unit: float) -> None:
        self.at = lru_cache(64)(lambda p: CriticalSystem(Noise(Surface(energies(p))), unit))
        self.size = self.at(start).family.dim

    def split(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """z (B, d + 1) and v (B, d)."""
        return w[:, : self.size + 1], w[:, self.size + 1 : -1]

    def residual(self, w: Tensor) -> Tensor:
        r = torch.empty_like(w[:, :-1])
        for p in w[:, -1].unique().tolist():
            rows, system = w[:, -1] == p, self.at(p)
            z, v = self.split(w[rows])
            image = system.family.product(system.state(z), system.parameter(z))(v)
            norm = 0.5 * (v.square().sum(1, keepdim=True) - 1)
            r[rows] = torch.cat([system.residual(z), image, norm], 1)
        return r

    def jacobian(self, w: Tensor) -> Jacobian:
        return Dense(differences(self.residual, w))

    def record(self, w: Tensor, jacobian: Jacobian) -> Tensor:
        return torch.stack([self.quadratic(row) for row in w])[:, None]

    def quadratic(self, w: Tensor) -> Tensor:
        """⟨v, ∇³V v v⟩ at one w (2d + 2,)."""
        (z, v), system = self.split(w[None]), self.at(float(w[-1]))
        value = quadratic_coefficient(system.family, system.state(z), system.parameter(z), v)
        return w.new_tensor(value)


@dataclass(frozen=True)
class Cusp:
    """Where two folds meet and end, in two parameters."""

    sigma: float
    parameter: float
    x: Tensor


@dataclass(frozen=True)
class FoldCurve:
    """m folds along a curve in the plane of σ and p, and the cusps on it.

    Attributes:
        sigma, parameter: (m,).
        x: (m, \\*shape).
        quadratic: ⟨v, ∇³V v v⟩, (m,).
        cusps: those passed.
        ends: why it ends on either side: "bound" of p, "length", "closed" or "stuck".
    """

    sigma: Tensor
    parameter: Tensor
    x: Tensor
    quadratic: Tensor
    cusps: list[Cusp]
    ends: tuple[str, str]


def fold_curve(
    energies: Callable[[float], Energy],
    x: Tensor,
    sigma: float,
    parameter: float,
    bounds: tuple[float, float],
    *,
    longest: float = 0.1,
    unit: float = 1.0,
    points: int = 200,
) -> FoldCurve:
    """Follow a fold both ways as p varies, with the cusps that it passes.

    Args:
        energies: from p to an energy, smooth in p to float64: build its tensors in that.
        x, sigma, parameter: the fold, (\\*shape), as an :class:`Event` tells it, at ``parameter``.
        bounds: least and greatest p.
        longest, unit, points: as of :func:`bifurcation_diagram`.
    """
    system = FoldSystem(energies, parameter, unit)
    inner = system.at(parameter)
    z = inner.pack(x[None].double(), torch.tensor([sigma], dtype=torch.float64))
    modes = spectrum(inner.family, inner.state(z), inner.parameter(z))
    v = modes[1][:, modes[0][0].abs().argmin()]
    w, solved, _ = correct(system, torch.cat([z, v, z.new_tensor([[parameter]])], 1))
    if not bool(solved):
        raise UserError(f"there is no fold near sigma = {sigma:g} at parameter {parameter:g}.")
    aside = torch.zeros_like(w)
    aside[:, -1] = 1.0
    aside = system.jacobian(w).kernel(aside)
    back, ahead = follow(
        system, w.repeat(2, 1), torch.cat([-aside, aside]), bounds, longest=longest, points=points
    )
    curve = back.joined(ahead)
    sign = curve.record[:, 0].sign()
    at = [
        locate(system, curve, i, lambda w, t: float(system.quadratic(w)))[0]
        for i in (sign[:-1] * sign[1:] < 0).nonzero()[:, 0].tolist()
    ]
    cusps = [
        Cusp(float(inner.parameter(w[None, : system.size + 1])), float(w[-1]), _sample(system, w))
        for w in at
    ]
    z = system.split(curve.z)[0]
    return FoldCurve(
        inner.parameter(z).cpu(),
        curve.z[:, -1].cpu(),
        inner.family.shaped(inner.state(z)).cpu(),
        curve.record[:, 0].cpu(),
        cusps,
        (back.end, ahead.end),
    )


def _sample(system: FoldSystem, w: Tensor) -> Tensor:
    inner = system.at(float(w[-1]))
    return inner.family.shaped(inner.state(w[None, : system.size + 1]))[0].cpu()
