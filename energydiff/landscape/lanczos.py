"""Extreme eigenpairs of many symmetric operators at once (Lanczos 1950; in blocks, Cullum &
Donath 1974).

SciPy's ``eigsh`` takes one operator at a time; a network's Hessian-vector products are far cheaper
for a batch of states. With full reorthogonalisation no spurious copies of eigenvalues appear (Golub
& Van Loan 2013, §10.3).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from energydiff.random import PROBE, keyed_normal

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Subspace:
    """A Krylov space of each operator H with its Ritz pairs, from the lowest value up.

    Attributes:
        basis: orthonormal rows Q, (B, m, d).
        images: H Q, (B, m, d).
        values: Ritz values, (B, m): each within its residual of an eigenvalue, none beyond the
            spectrum, and no fewer eigenvalues of H are negative than they are.
        vectors: their coordinates in the basis, columns, (B, m, m).
    """

    basis: Tensor
    images: Tensor
    values: Tensor
    vectors: Tensor

    def modes(self, count: int) -> Tensor:
        """The lowest Ritz vectors, (B, count, d)."""
        return self.vectors[:, :, :count].mT @ self.basis

    def residuals(self) -> Tensor:
        """‖H y − θ y‖ of every Ritz pair, (B, m)."""
        rest = self.vectors.mT @ self.images
        return (rest - self.values[..., None] * (self.vectors.mT @ self.basis)).norm(dim=2)


def krylov(product: Product, start: Tensor, dimension: int) -> Subspace:
    """The Krylov space of ``start`` (B, s, d), s directions of each operator, none of them all 0.

    The values of an operator that is not finite are NaN.

    Args:
        product: (B, d) to (B, d), a symmetric operator of each sample.
        dimension: m, at most d; with d the Ritz pairs are the eigenpairs.
    """
    count, block, dim = start.shape
    basis = start.new_empty(count, dimension, dim)
    images = torch.empty_like(basis)
    for i in range(dimension):
        seed = start[:, i] if i < block else images[:, i - block]
        scale, rest = seed.norm(dim=1), _orthogonal(seed, basis[:, :i])
        # An invariant subspace is exhausted: go on from any direction orthogonal to it.
        spent = rest.norm(dim=1) <= 1e-10 * scale
        if bool(spent.any()):
            other = keyed_normal(i, range(count), (dim,), PROBE).to(start)
            rest = torch.where(spent[:, None], _orthogonal(other, basis[:, :i]), rest)
        basis[:, i] = rest / rest.norm(dim=1, keepdim=True).clamp(min=torch.finfo(rest.dtype).tiny)
        images[:, i] = product(basis[:, i].contiguous())
    matrix = images @ basis.mT
    matrix = 0.5 * (matrix + matrix.mT)
    # eigh fails on what is not finite, as the Hessian of a model that diverged: one sample of all.
    finite = matrix.isfinite().all(2).all(1)[:, None]
    values, vectors = torch.linalg.eigh(torch.where(finite[..., None], matrix, 0.0))
    return Subspace(basis, images, torch.where(finite, values, torch.nan), vectors)


def lanczos(product: Product, start: Tensor, iterations: int) -> tuple[Tensor, Tensor, Tensor]:
    """Lowest and highest Ritz value and the larger of their residuals, (B,) each.

    Args:
        start: (B, d), not 0; product and iterations as of :func:`krylov`.
    """
    space = krylov(product, start[:, None], iterations)
    residuals = space.residuals()
    error = torch.maximum(residuals[:, 0], residuals[:, -1])
    return space.values[:, 0], space.values[:, -1], error


def _orthogonal(vector: Tensor, basis: Tensor) -> Tensor:
    """The part of (B, d) vectors orthogonal to the basis (B, k, d) so far; twice is enough."""
    for _ in range(2):
        along = torch.einsum("bkd,bd->bk", basis, vector)
        vector = vector - torch.einsum("bkd,bk->bd", basis, along)
    return vector
