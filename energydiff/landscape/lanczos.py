"""Extreme eigenvalues of many symmetric operators at once (Lanczos 1950).

SciPy's ``eigsh`` takes one operator at a time; a network's Hessian-vector products are far cheaper
for a batch of states. With full reorthogonalisation no spurious copies of eigenvalues appear (Golub
& Van Loan 2013, §10.3).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from energydiff.random import PROBE, keyed_normal


def lanczos(
    product: Callable[[Tensor], Tensor], start: Tensor, iterations: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Lowest and highest Ritz value and the larger of their residuals, (B,) each.

    Args:
        product: (B, d) to (B, d), a symmetric operator of each sample.
        start: (B, d), not 0.
        iterations: Krylov dimension, at most d; with d of them the values are exact.
    """
    vector = start / start.norm(dim=1, keepdim=True)
    basis: list[Tensor] = []
    diagonal: list[Tensor] = []
    off_diagonal: list[Tensor] = []
    for _ in range(iterations):
        basis.append(vector)
        image = product(vector)
        diagonal.append((image * vector).sum(1))
        scale = image.norm(dim=1)
        rest = _orthogonal(image, basis)
        length = rest.norm(dim=1)
        # An invariant subspace is exhausted: go on from any direction orthogonal to it.
        spent = length <= 1e-10 * scale
        length = torch.where(spent, 0.0, length)
        off_diagonal.append(length)
        if bool(spent.any()):
            other = keyed_normal(len(basis), range(len(start)), start.shape[1:], PROBE).to(start)
            rest = torch.where(spent[:, None], _orthogonal(other, basis), rest)
        vector = rest / rest.norm(dim=1, keepdim=True).clamp(min=torch.finfo(rest.dtype).tiny)
    matrix = torch.diag_embed(torch.stack(diagonal, 1))
    if iterations > 1:
        sides = torch.stack(off_diagonal[:-1], 1)
        matrix = matrix + torch.diag_embed(sides, 1) + torch.diag_embed(sides, -1)
    values, vectors = torch.linalg.eigh(matrix)
    residuals = off_diagonal[-1][:, None] * vectors[:, -1, :].abs()
    error = torch.maximum(residuals[:, 0], residuals[:, -1])
    return values[:, 0], values[:, -1], error


def _orthogonal(vector: Tensor, basis: list[Tensor]) -> Tensor:
    """The part of (B, d) vectors orthogonal to the basis so far; twice is enough."""
    stacked = torch.stack(basis, 1)
    for _ in range(2):
        vector = vector - torch.einsum(
            "bkd,bk->bd", stacked, torch.einsum("bkd,bd->bk", stacked, vector)
        )
    return vector
