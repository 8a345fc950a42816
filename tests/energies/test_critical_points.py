"""T5, T7, T8, T9: all critical points of a few data sets, as data and as log-sum-exp memories.

Newton's method from many starts finds critical points of every index; that none is missing is
checked by Σ (−1)^index = 1, which holds for every coercive energy on R^d with no degenerate one.
"""

import math
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, fsolve
from torch import Tensor

from energydiff.energies import EmpiricalData, Energy
from energydiff.memory import LogSumExpMemory

Landscape = tuple[Energy, float]  # an energy and the noise (of a memory: √temperature) it is at


def data(points: Tensor, sigma: float) -> Landscape:
    return EmpiricalData(points), sigma


def memory(points: Tensor, sigma: float) -> Landscape:
    """The same V up to a constant if all points have one norm."""
    return LogSumExpMemory(1 / sigma**2).store(points), 1.0


both = pytest.mark.parametrize("landscape", [data, memory])


def slope(landscape: Landscape, x: Tensor) -> Tensor:
    """∇V, like x (B, d)."""
    energy, sigma = landscape
    return sigma**2 * energy.value_and_grad(x, sigma)[1]


def hessian(landscape: Landscape, x: Tensor) -> Tensor:
    """∇²V, (B, d, d), one Hessian-vector product per axis."""
    energy, sigma = landscape
    axes = torch.eye(x.shape[1], dtype=x.dtype)
    columns = [energy.hessian_vector_product(x, sigma, axis.expand_as(x)) for axis in axes]
    return sigma**2 * torch.stack(columns, 2)


def critical_points(landscape: Landscape, starts: int = 400) -> tuple[Tensor, list[int]]:
    """All x (n, d) with ∇V = 0, and their Morse indices; every one is hyperbolic."""
    generator, shape = torch.Generator().manual_seed(0), (starts, landscape[0].dim)
    x = 2.4 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1.2
    x = x * torch.rand(starts, 1, generator=generator)  # denser where critical points crowd
    for _ in range(40):
        step = torch.linalg.solve(hessian(landscape, x), slope(landscape, x))
        x = x - step * (0.2 / step.norm(dim=1, keepdim=True)).clamp(max=1)
    x = x[slope(landscape, x).norm(dim=1) < 1e-11]
    found: list[Tensor] = []
    for point in x:
        if all((point - other).norm() > 1e-5 for other in found):
            found.append(point)
    points = torch.stack(found)
    eigenvalues = torch.linalg.eigvalsh(hessian(landscape, points))
    assert eigenvalues.abs().min() > 1e-7
    indices = (eigenvalues < 0).sum(1).tolist()
    assert sum((-1) ** index for index in indices) == 1, "one is missing"
    return points, indices


def simplex(dim: int) -> Tensor:
    """dim + 1 points at distance 1 from the origin and equal distances from one another."""
    centred = torch.eye(dim + 1, dtype=torch.float64) - 1 / (dim + 1)
    coordinates = centred @ torch.linalg.eigh(centred).eigenvectors[:, 1:]
    return coordinates / coordinates.norm(dim=1, keepdim=True)


# T5. The regular simplex


@both
@pytest.mark.parametrize(("sigma", "counts"), [(0.70, (3, 3, 1)), (0.72, (4, 3, 0)), (0.75, (1,))])
def test_a_triangle_has_a_spurious_minimum_beside_its_memories(
    landscape: Callable[..., Landscape], sigma: float, counts: tuple[int, ...]
) -> None:
    """Minima, saddles, maxima."""
    _, indices = critical_points(landscape(simplex(2), sigma))
    assert Counter(indices) == Counter(dict(enumerate(counts)))


@both
@pytest.mark.parametrize("dim", [2, 3, 10])
def test_the_centre_of_a_simplex_is_a_minimum_above_one_over_root_d(
    landscape: Callable[..., Landscape], dim: int
) -> None:
    centre = torch.zeros(1, dim, dtype=torch.float64)

    def curvatures(sigma: float) -> Tensor:
        return torch.linalg.eigvalsh(hessian(landscape(simplex(dim), sigma), centre))[0]

    critical = dim**-0.5
    assert slope(landscape(simplex(dim), critical), centre).norm() < 1e-12
    assert curvatures(critical).abs().max() < 1e-12  # in all directions at once
    assert curvatures(critical + 1e-6).min() > 0 > curvatures(critical - 1e-6).max()


@both
@pytest.mark.parametrize(("dim", "fold"), [(2, 0.739135), (3, 0.643615), (10, 0.484307)])
def test_the_memories_of_a_simplex_vanish_in_a_fold(
    landscape: Callable[..., Landscape], dim: int, fold: float
) -> None:
    """On the axis to a vertex slope and curvature vanish together; across it V is convex."""
    vertices = simplex(dim)
    axis = vertices[:1]

    def conditions(unknown: list[float]) -> list[float]:
        along, sigma = unknown
        here = landscape(vertices, sigma), along * axis
        return [
            (slope(*here) @ axis.T).item(),
            (axis @ hessian(*here)[0] @ axis.T).item(),
        ]

    along, sigma = fsolve(conditions, [0.6, fold + 0.02], xtol=1e-12)
    assert sigma == pytest.approx(fold, abs=6e-7)
    curvatures = torch.linalg.eigvalsh(hessian(landscape(vertices, sigma), along * axis))[0]
    assert abs(curvatures[0]) < 1e-9 and curvatures[1] > 0.01


# T7. The hypercube, whose energy is a sum over coordinates


@both
@pytest.mark.parametrize("dim", [2, 3])
def test_a_hypercube_has_binomially_many_critical_points(
    landscape: Callable[..., Landscape], dim: int
) -> None:
    """C(D, k)·2^(D − k) of index k below σ = a, coordinates in {0, ±x*}; one minimum above."""
    a, sigma = 0.8, 0.55
    corners = a * torch.cartesian_prod(*[torch.tensor([-1.0, 1.0]).double()] * dim)
    points, indices = critical_points(landscape(corners, sigma), starts=250 * 2 ** (dim - 1))
    expected = {k: math.comb(dim, k) * 2 ** (dim - k) for k in range(dim + 1)}
    assert Counter(indices) == expected
    well = brentq(lambda x: x - a * math.tanh(a * x / sigma**2), 0.1, a)
    distances = torch.stack([(points.abs() - value).abs() for value in (0, well)]).amin(0)
    assert distances.max() < 1e-9
    assert critical_points(landscape(corners, 1.02 * a))[1] == [0]


# T8. Three points with a mirror


def three(sigma: float, delta: float = 0.0) -> Landscape:
    height = math.sqrt(3) / 2
    points = [[0.95, delta], [-0.7, height], [-0.7, -height]]
    return EmpiricalData(torch.tensor(points, dtype=torch.float64)), sigma


def on_the_mirror(sigma: float, low: float, high: float) -> Tensor:
    """The critical point of the mirrored set between two places on its axis, (1, 2)."""

    def place(x: float) -> Tensor:
        return torch.tensor([[x, 0.0]], dtype=torch.float64)

    return place(brentq(lambda x: slope(three(sigma), place(x))[0, 0].item(), low, high))


def across(sigma: float, low: float, high: float) -> float:
    """Curvature of V across the mirror, at such a point."""
    return hessian(three(sigma), on_the_mirror(sigma, low, high))[0, 1, 1].item()


@pytest.mark.parametrize(("sigma", "low", "high"), [(0.65773, -0.2, 0.2), (0.78180, -0.6, -0.2)])
def test_the_pitchforks_of_the_mirrored_set(sigma: float, low: float, high: float) -> None:
    """Two saddles, then two minima, meet on the axis: the curvature across it changes sign."""
    found = brentq(lambda s: across(s, low, high), sigma - 0.01, sigma + 0.003, xtol=1e-10)
    assert found == pytest.approx(sigma, abs=6e-6)


def test_the_fold_of_the_mirrored_set() -> None:
    """The lone point's minimum and the saddle before it meet on the axis."""

    def conditions(unknown: list[float]) -> list[float]:
        place, sigma = torch.tensor([[unknown[0], 0.0]], dtype=torch.float64), unknown[1]
        along = slope(three(sigma), place)[0, 0], hessian(three(sigma), place)[0, 0, 0]
        return [part.item() for part in along]

    place, sigma = fsolve(conditions, [0.42, 0.77], xtol=1e-12)
    assert sigma == pytest.approx(0.77324, abs=6e-6)
    assert across(sigma - 1e-5, place, 0.9) > 0.01


@pytest.mark.parametrize(
    ("sigma", "counts"),
    [(0.65, (3, 3, 1)), (0.66, (3, 2)), (0.77, (3, 2)), (0.776, (2, 1)), (0.785, (1,))],
)
def test_what_the_mirrored_set_has_between_its_bifurcations(
    sigma: float, counts: tuple[int, ...]
) -> None:
    assert Counter(critical_points(three(sigma))[1]) == Counter(dict(enumerate(counts)))


def leftward_from_the_saddle(sigma: float, delta: float) -> Tensor:
    """x ← D(x) along the unstable manifold of the right-hand saddle, (steps, 2)."""
    landscape = three(sigma, delta)
    points, indices = critical_points(landscape)
    saddles = points[torch.tensor(indices) == 1]
    saddle = saddles[saddles[:, 0].argmax()][None]
    direction = torch.linalg.eigh(hessian(landscape, saddle)[0]).eigenvectors[:, 0]
    x = saddle - 1e-4 * direction * direction[0].sign()
    path = [x]
    for _ in range(400):
        x = x - slope(landscape, x)
        path.append(x)
    return torch.cat(path)


@pytest.mark.parametrize("sigma", [0.66, 0.70, 0.77])
def test_the_mirror_joins_a_saddle_to_a_saddle(sigma: float) -> None:
    """Not Morse–Smale: the descent from one saddle passes no minimum before the other."""
    other = on_the_mirror(sigma, -0.6, -0.3)
    assert torch.linalg.eigvalsh(hessian(three(sigma), other))[0].prod() < 0
    assert (leftward_from_the_saddle(sigma, 0.0) - other).norm(dim=1).min() < 1e-6


@pytest.mark.parametrize("delta", [-0.02, 0.02])
def test_without_the_mirror_the_same_descent_ends_in_a_minimum(delta: float) -> None:
    """On the side that the lone point moved to."""
    path = leftward_from_the_saddle(0.7, delta)
    landscape = three(0.7, delta)
    assert slope(landscape, path[-1:]).norm() < 1e-8
    assert torch.linalg.eigvalsh(hessian(landscape, path[-1:])).min() > 0
    assert path[-1, 1] * delta > 0.1 * abs(delta)


# T9. Enough noise


@settings(max_examples=30)
@given(st.integers(0, 2**31 - 1), st.integers(1, 3), st.integers(2, 8), st.floats(1.001, 3))
def test_one_minimum_when_the_noise_reaches_half_the_diameter(
    seed: int, dim: int, count: int, ratio: float
) -> None:
    """No direction of the posterior has more variance than (diameter/2)² ≤ σ²: V is convex."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(count, dim, generator=generator, dtype=torch.float64) - 0.5
    landscape = data(points, ratio * torch.pdist(points).max().item() / 2)
    anywhere = torch.rand(100, dim, generator=generator, dtype=torch.float64) * 3 - 1.5
    assert torch.linalg.eigvalsh(hessian(landscape, torch.cat([points, anywhere]))).min() > 0
    assert critical_points(landscape, starts=20)[1] == [0]


def test_half_the_diameter_is_the_least_noise_that_suffices() -> None:
    """For two points: two minima just below it."""
    points = torch.tensor([[-0.5, 0.0], [0.5, 0.0]], dtype=torch.float64)
    assert Counter(critical_points(data(points, 0.49))[1]) == {0: 2, 1: 1}
