"""Critical points of V(·, σ): what they are, how far they can be trusted, which are the same."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from energydiff.energies.base import sigma_vector
from energydiff.errors import UserError
from energydiff.files import write_arrays
from energydiff.landscape.lanczos import krylov
from energydiff.landscape.search import newton
from energydiff.landscape.surface import Product, Surface
from energydiff.random import PROBE, keyed_normal

TOLERANCE = 1e-8  # ‖∇V‖ / √d of what counts as found
COARSE = 1e-5  # of what float32 is to find first
DENSE = 256  # dimensions up to which the whole spectrum is computed
LANCZOS = 64  # Krylov dimension beyond
STORED = {"free_energy": "V", "energy": "E"}  # what a file calls them


class HasHessian(Protocol):
    """What a spectrum is computed of: a :class:`Surface`, or a family of them."""

    dim: int
    chunk: int

    def product(self, x: Tensor, sigma: Tensor, /) -> Product:
        """v ↦ ∇²V v."""

    def hessian(self, x: Tensor, sigma: Tensor, /) -> Tensor:
        """∇²V, (B, d, d)."""


@dataclass(frozen=True)
class CriticalPoints:
    """n critical points, all but ``x`` as (n, …) of float64 on the CPU.

    Attributes:
        x: (n, \\*shape), float64.
        sigma: noise level of each.
        index: Morse index: negative eigenvalues of ∇²V, int64.
        free_energy, energy: V, and E in nats.
        grad_norm: ‖∇V‖, units of x.
        eigenvalues: the lowest of ∇²V, (n, k), from the lowest up.
        modes: their eigenvectors, (n, k, \\*shape).
        margin: min |λ| over the spectrum, at least of what is known of it; 0 is degenerate.
        newton: β η L of Newton & Kantorovich (:func:`third_derivative`): a point lies within
            2‖∇V‖ / margin where it is at most ½.
        proved: the bound L on ∇³V is a theorem, not an estimate.
    """

    x: Tensor
    sigma: Tensor
    index: Tensor
    free_energy: Tensor
    energy: Tensor
    grad_norm: Tensor
    eigenvalues: Tensor
    modes: Tensor
    margin: Tensor
    newton: Tensor
    proved: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Tensor | slice) -> Self:
        """Those of a mask, of indices or of a slice."""
        return type(self)(*(getattr(self, field.name)[rows] for field in fields(self)))

    def of_index(self, index: int) -> Self:
        return self[self.index == index]

    @property
    def trusted(self) -> Tensor:
        """Whether a critical point of this index is certain to be near, (n,): ½ not exceeded."""
        return self.newton <= 0.5

    @property
    def euler_sum(self) -> int:
        """Σ (−1)^index: 1 over all critical points of a coercive V on R^d (Morse)."""
        return int((1 - 2 * (self.index % 2)).sum())

    def save(self, file: Path) -> None:
        """``critical_points.npz``, whole or not at all."""
        arrays = {field.name: getattr(self, field.name).cpu().numpy() for field in fields(self)}
        write_arrays(file, {STORED.get(name, name): array for name, array in arrays.items()})

    @classmethod
    def open(cls, file: Path) -> Self:
        """The inverse of :meth:`save`; ``UserError`` for another file."""
        try:
            with np.load(file) as arrays:
                found = [torch.from_numpy(arrays[STORED.get(f.name, f.name)]) for f in fields(cls)]
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{file} holds no critical points of this package: {error}.") from error
        return cls(*found)

    @classmethod
    def join(cls, parts: Iterable[Self]) -> Self:
        parts = list(parts)
        return cls(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(cls)))


def critical_points(
    surface: Surface,
    x: Tensor,
    sigma: float,
    index: int | None,
    task: str,
    modes: Tensor | None = None,
) -> CriticalPoints:
    """Distinct critical points of any index that Newton finds from x (B, d), lowest V first.

    The arguments are those of :func:`newton`. Where a network computes V, what float32 has found
    is found again in float64.
    """
    if surface.coarse is not surface:
        x = rough_points(surface.coarse, x, sigma, index, task, modes)
        x, index, modes = surface.flat(x), None, None
    search = newton(surface, x, sigma, index, tolerance=TOLERANCE, modes=modes, task=task)
    found = search.x[search.converged]
    points = examine(surface, found[distinct(found, merging_radius(surface))], sigma)
    return points[points.free_energy.argsort()]


def rough_points(
    coarse: Surface,
    x: Tensor,
    sigma: float,
    index: int | None,
    task: str,
    modes: Tensor | None = None,
) -> Tensor:
    """Where Newton in float32 comes near critical points, (n, d), most copies left out."""
    modes = None if modes is None else modes.to(coarse.dtype)
    search = newton(
        coarse, coarse.flat(x), sigma, index, steps=40, tolerance=COARSE, modes=modes, task=task
    )
    found = search.x[search.converged]
    return found[distinct(found, 10 * merging_radius(coarse))]


def merging_radius(surface: Surface) -> float:
    """Critical points closer than this, units of x, are one."""
    return 1e-4 * surface.dim**0.5


def examine(
    surface: Surface, x: Tensor, sigma: float | Tensor, *, modes: int = 4
) -> CriticalPoints:
    """Index, spectrum and trust of critical points x (B, d), already found.

    Up to 256 dimensions by the dense Hessian; beyond by Lanczos from a random start, which can
    overlook eigenvalues but invents no negative one.

    Args:
        modes: how many of the lowest eigenpairs are kept, where there are as many dimensions.
    """
    levels, kept = sigma_vector(sigma, x), min(modes, surface.dim)
    value, slope = surface.gradient(x, levels)
    values, vectors = spectrum(surface, x, levels)
    constant = 0.5 * surface.energy.densities * surface.dim
    index = (values < 0).sum(1)
    margin = values.abs().amin(1)
    grad_norm = slope.norm(dim=1)
    bound, proved = third_derivative(surface, x, levels)
    return CriticalPoints(
        x=surface.shaped(x).cpu(),
        sigma=levels.cpu(),
        index=index.cpu(),
        free_energy=value.cpu(),
        energy=(value / levels**2 + constant * torch.log(2 * torch.pi * levels**2)).cpu(),
        grad_norm=grad_norm.cpu(),
        eigenvalues=values[:, :kept].cpu(),
        modes=vectors[:, :kept].reshape(len(x), kept, *surface.shape).cpu(),
        margin=margin.cpu(),
        newton=(bound * grad_norm / margin.square()).cpu(),
        proved=torch.full((len(x),), proved),
    )


def third_derivative(surface: Surface, x: Tensor, sigma: Tensor) -> tuple[Tensor, bool]:
    """A Lipschitz constant L of ∇²V, (B,), and whether it is a theorem.

    Without a bound of the energy's own: the largest difference quotient ‖(∇²V(x + εu) − ∇²V(x))u‖/ε
    over a few random directions u; an estimate from below.
    """
    bound = surface.energy.third_derivative_bound(sigma)
    if bound is not None:
        return bound.to(x), True
    step, here = 1e-3 * sigma, surface.product(x, sigma)
    largest = torch.zeros_like(sigma)
    for number in range(4):
        u = keyed_normal(number, range(len(x)), (surface.dim,), PROBE, torch.float64).to(x)
        u = u / u.norm(dim=1, keepdim=True)
        there = surface.product(x + step[:, None] * u, sigma)
        largest = largest.maximum((there(u) - here(u)).norm(dim=1) / step)
    return largest, False


def distinct(x: Tensor, radius: float) -> Tensor:
    """Rows of x (n, …) that remain when of any two closer than ``radius`` the later one goes."""
    if not len(x):
        return torch.empty(0, dtype=torch.int64, device=x.device)
    flat = x.flatten(1).cpu().numpy()
    gone = np.zeros(len(flat), dtype=bool)
    for first, second in sorted(cKDTree(flat).query_pairs(radius)):
        if not gone[first]:
            gone[second] = True
    return torch.from_numpy(np.flatnonzero(~gone)).to(x.device)


def nearest(x: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Of each x (n, …) the distance to the nearest of ``known`` (m, …), and its number; ∞, −1
    where there is none."""
    if not len(known) or not len(x):
        return torch.full((len(x),), torch.inf), torch.full((len(x),), -1)
    distance, number = cKDTree(known.flatten(1).cpu().numpy()).query(x.flatten(1).cpu().numpy())
    return torch.as_tensor(distance), torch.as_tensor(number, dtype=torch.int64)


def spectrum(surface: HasHessian, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (B, m) from the lowest up and eigenvectors (B, m, d)."""
    if surface.dim <= DENSE:
        chunks = zip(x.split(surface.chunk), sigma.split(surface.chunk), strict=True)
        parts = [torch.linalg.eigh(surface.hessian(part, level)) for part, level in chunks]
        values = torch.cat([v for v, _ in parts])
        return values, torch.cat([vectors.mT for _, vectors in parts])
    start = keyed_normal(0, range(len(x)), (2, surface.dim), PROBE, torch.float64).to(x)
    space = krylov(surface.product(x, sigma), start, LANCZOS)
    return space.values, space.modes(LANCZOS)
