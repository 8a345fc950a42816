"""T5: the regular simplex of N = D + 1 points, circumradius 1: its critical points, counted.

At one, x = Σ w_i y_i and w_i ∝ exp(κ w_i), κ = N/(Dσ²). log w − κw takes a value at most twice, so
the w_i are a on m of the points and b < a on the others, ma + (N − m)b = 1: one equation for each
m, C(N, m) critical points for each root, and the centre. There ∇²V = I − κ(diag w − wwᵀ) across
(1, …, 1): 1 − κa (m − 1 times), 1 − κb (N − m − 1 times) and 1 − κNab.
"""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor

from energydiff.energies import EmpiricalData
from energydiff.landscape.critical import critical_points, distinct, examine
from energydiff.landscape.exploration import minima
from energydiff.landscape.search import newton
from energydiff.landscape.surface import Surface


def simplex(dim: int) -> Tensor:
    centred = torch.eye(dim + 1, dtype=torch.float64) - 1 / (dim + 1)
    coordinates = centred @ torch.linalg.eigh(centred).eigenvectors[:, 1:]
    return coordinates / coordinates.norm(dim=1, keepdim=True)


def solutions(dim: int, sigma: float) -> list[tuple[int, float, float]]:
    """All (m, a, b), a > b, of every root t = log(a/b) > 0; m = 0 is the centre."""
    count = dim + 1
    kappa = count / (dim * sigma**2)
    found = [(0, 1 / count, 1 / count)]
    for m in range(1, count):

        def small(t: float, m: int = m) -> float:
            return 1 / (m * math.exp(t) + count - m)

        def excess(t: float, b=small) -> float:
            return t - kappa * math.expm1(t) * b(t)

        # excess′ = 0 is quadratic in e^t: monotone between its roots, so none of excess is missed.
        turns = np.roots([m**2, 2 * m * (count - m) - kappa * count, (count - m) ** 2])
        inner = [math.log(y) for y in turns[np.isreal(turns)].real if y > 1]
        for low, high in itertools.pairwise([1e-7, *sorted(inner), kappa / m + 1]):
            if excess(low) * excess(high) < 0:
                t = brentq(excess, low, high, xtol=1e-15)
                found.append((m, math.exp(t) * small(t), small(t)))
    return found


def index(dim: int, sigma: float, solution: tuple[int, float, float]) -> int:
    (m, a, b), count = solution, dim + 1
    kappa = count / (dim * sigma**2)
    if m == 0:
        return dim if kappa * a > 1 else 0
    mixed = kappa * count * a * b > 1
    return (m - 1) * (kappa * a > 1) + (count - m - 1) * (kappa * b > 1) + mixed


def counts(dim: int, sigma: float) -> Counter[int]:
    exact: Counter[int] = Counter()
    for solution in solutions(dim, sigma):
        exact[index(dim, sigma, solution)] += math.comb(dim + 1, solution[0])
    return exact


def place(dim: int, solution: tuple[int, float, float]) -> Tensor:
    m, a, b = solution
    weights = torch.tensor([a] * m + [b] * (dim + 1 - m), dtype=torch.float64)
    return (weights @ simplex(dim))[None]


@pytest.mark.parametrize(("sigma", "found"), [(0.70, (3, 3, 1)), (0.72, (4, 3)), (0.75, (1,))])
def test_the_triangle(sigma: float, found: tuple[int, ...]) -> None:
    """Counted, and searched by Newton from everywhere."""
    assert counts(2, sigma) == Counter(dict(enumerate(found)))
    surface = Surface(EmpiricalData(simplex(2)))
    starts = 1.6 * torch.rand(300, 2, generator=torch.Generator().manual_seed(0)).double() - 0.8
    points = critical_points(surface, starts, sigma, None, "Searching")
    assert Counter(points.index.tolist()) == Counter(dict(enumerate(found)))


@pytest.mark.parametrize("dim", [2, 3, 5, 10, 20, 50])
@pytest.mark.parametrize("ratio", [0.8, 0.99, 1.02, 1.8])
def test_counts_and_indices_are_exact(dim: int, ratio: float) -> None:
    """σ = ratio/√D: Σ (−1)^index = 1, and one point of every kind has the index of its dense
    Hessian."""
    sigma = ratio / dim**0.5
    exact = counts(dim, sigma)
    assert sum((-1) ** k * n for k, n in exact.items()) == 1
    surface, kinds = Surface(EmpiricalData(simplex(dim))), solutions(dim, sigma)
    x = torch.cat([place(dim, solution) for solution in kinds])
    points = examine(surface, x, sigma)
    assert float(points.grad_norm.max()) < 1e-10
    assert points.index.tolist() == [index(dim, sigma, solution) for solution in kinds]


@pytest.mark.parametrize("dim", [10, 50])
@pytest.mark.parametrize("ratio", [0.9, 1.1])
def test_minima_and_saddles_are_found(dim: int, ratio: float) -> None:
    """Every minimum, the spurious centre (above 1/√D) among them, and every index-1 saddle: from
    midpoints of pairs and from between the points and the centre."""
    sigma, vertices = ratio / dim**0.5, simplex(dim)
    exact, surface = counts(dim, sigma), Surface(EmpiricalData(vertices))
    low = minima(surface, torch.cat([vertices, 0 * vertices[:1]]), sigma)
    assert len(low) == exact[0] == dim + 1 + (ratio > 1)
    one, other = torch.triu_indices(dim + 1, dim + 1, 1)
    axes = [radius * vertices for radius in (0.1, 0.2, 0.3, 0.5)]
    starts = torch.cat([*axes, 0.5 * (vertices[one] + vertices[other])])
    along = torch.cat([vertices.repeat(4, 1), vertices[one] - vertices[other]])[:, None]
    search = newton(surface, starts, sigma, 1, modes=along)
    found = search.x[search.converged]
    points = examine(surface, found[distinct(found, 1e-5)], sigma)
    assert len(points.of_index(1)) == exact[1]


def test_memories_of_many_dimensions_outlast_the_centre() -> None:
    """The fold of vertex minima (T5): they exist just below it and not above."""
    for dim, fold in ((2, 0.739135), (3, 0.643615), (10, 0.484307)):
        assert counts(dim, fold - 1e-6)[0] == dim + 2
        assert counts(dim, fold + 1e-6)[0] == 1
