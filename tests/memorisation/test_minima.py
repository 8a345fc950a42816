"""Spurious states as minima: T5's exact window, a learned one followed, T12's dimensions."""

import math

import pytest
import torch
from torch import Tensor

from energydiff.energies import EmpiricalData
from energydiff.errors import UserError
from energydiff.landscape.surface import Surface
from energydiff.memorisation import (
    exact_minima,
    fates,
    local_dimension,
    measure_states,
    rest,
    scan,
    spurious_window,
)


def simplex(dim: int) -> Tensor:
    """dim + 1 points on the unit sphere, equally far apart."""
    centred = torch.eye(dim + 1, dtype=torch.float64) - 1 / (dim + 1)
    points = centred @ torch.linalg.svd(centred)[2].T[:, :dim]
    return points / points.norm(dim=1, keepdim=True)


def empirical(points: Tensor) -> Surface:
    return Surface(EmpiricalData(points))


# T5


@pytest.mark.parametrize(("dim", "fold"), [(2, 0.739135), (3, 0.643615), (10, 0.484307)])
def test_the_window_of_a_spurious_state_beside_all_memories(dim: int, fold: float) -> None:
    """The centre of a simplex is a minimum above 1/√D, the corners have theirs up to the fold."""
    points = simplex(dim)
    levels = torch.linspace(0.30, 0.82, 27).tolist()
    found = spurious_window(
        empirical(points), points, torch.zeros(dim).double(), levels, precision=1e-5
    )
    assert found is not None
    assert found.low == pytest.approx(dim**-0.5, rel=2e-5)
    assert found.high == pytest.approx(fold, rel=2e-5)


def test_two_points_have_no_spurious_state() -> None:
    points = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).double()
    levels = torch.linspace(0.35, 1.45, 12).tolist()  # at 1 both are one degenerate point
    assert spurious_window(empirical(points), points, torch.zeros(2).double(), levels) is None


def test_minima_of_a_triangle() -> None:
    """(4, 3, 0) at .72; alone at .75, where one is shared by all."""
    points, centre = simplex(2), torch.zeros(1, 2).double()
    between = exact_minima(empirical(points), points, centre, 0.72)
    assert (between.alone, len(between.spurious), len(between.minima)) == (3, 1, 4)
    assert float(between.spurious.x.norm()) < 1e-8
    above = exact_minima(empirical(points), points, centre, 0.75)
    assert (above.alone, len(above.spurious), len(above.minima)) == (0, 1, 1)


# Samples come to rest, and are followed


def test_a_sample_rests_at_the_centre_and_is_certified() -> None:
    points = simplex(2)
    samples = torch.cat([0.02 * torch.ones(1, 2).double(), 1.05 * points[:1]])
    found = rest(empirical(points), samples, points, 0.72)
    assert found.certified.tolist() == [True, True]
    assert found.points.index.tolist() == [0, 0]
    assert (found.points.grad_norm <= 1e-8 * math.sqrt(2)).all()
    assert found.spurious(0.5).tolist() == [True, False]
    plain = found.plain(0.5)
    assert plain["minima"] == 2 and plain["spurious_minima"] == 1 and plain["distinct"] == 2
    assert plain["moved"][0] == pytest.approx(0.02 * math.sqrt(2), rel=1e-6)


def test_what_becomes_of_a_spurious_minimum() -> None:
    """The centre of a triangle beside more data: as it was, on a new point, in a row of points,
    between two, and with nothing near it."""
    triangle, centre, sigma = simplex(2), torch.zeros(1, 2).double(), 0.735

    def fate(more: Tensor, noise: float = sigma, reach: float = 0.4) -> str:
        data = torch.cat([triangle, more.double()])
        (told,) = fates(empirical(data), centre, data, noise, reach)
        return told

    nothing = torch.empty(0, 2)
    assert fate(nothing) == "persists"
    assert fate(torch.zeros(1, 2), 0.3) == "memory"
    assert fate(torch.tensor([[0.2, 0.0], [-0.2, 0.0]]), 0.1) == "split"
    assert fate(5 * torch.ones(200, 2), 0.3) == "gone"
    row = torch.stack([torch.linspace(-3, 3, 301), torch.zeros(301)], 1)
    assert fate(row, 0.3, 1.0) == "valley"
    assert fates(empirical(triangle), centre[:0], triangle, sigma, 0.4) == []


def test_where_samples_come_to_rest_at_several_noise_levels() -> None:
    """Of two points 2 apart: at their own below the pitchfork at 1, between the two above it."""
    points = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).double()
    samples = points + torch.tensor([[0.1, 0.2], [0.0, -0.1]]).double()
    found = scan(empirical(points), samples, points, [0.3, 0.8, 1.2], 0.2)
    assert found.home.tolist() == [[True, True], [True, True], [False, False]]
    assert torch.equal(found.spurious, ~found.home)
    assert found.moved[0] == pytest.approx([math.hypot(0.1, 0.2), 0.1], abs=1e-4)
    assert found.moved[2] == pytest.approx([math.hypot(1.1, 0.2), math.hypot(1, 0.1)], abs=1e-3)


# T12


def test_local_dimensions() -> None:
    """0 at a point alone, 1 on a ring, k on a plane of k dimensions."""
    alone = torch.eye(5).double()
    assert local_dimension(EmpiricalData(alone), alone, 0.05).abs().max() < 1e-6
    angles = torch.arange(2_000).double() * 2 * math.pi / 2_000
    ring = torch.stack([angles.cos(), angles.sin()], 1)
    found = local_dimension(EmpiricalData(ring), ring[::400], 0.05)
    assert found == pytest.approx([1.0] * 5, abs=0.01)
    grid = torch.cartesian_prod(*[torch.linspace(-1, 1, 41).double()] * 2)
    plane = torch.cat([grid, torch.zeros(len(grid), 3)], 1)
    middle = torch.zeros(1, 5).double()
    assert local_dimension(EmpiricalData(plane), middle, 0.1).item() == pytest.approx(2, abs=1e-2)
    with pytest.raises(UserError, match="noise above 0"):
        local_dimension(EmpiricalData(plane), middle, 0.0)


def test_states_of_memories_and_of_what_is_none() -> None:
    """A memory is low, level, curved like x²/2 and found again; a point between two is not."""
    points = 3 * torch.eye(4).double()
    between = points.mean(0, keepdim=True) + torch.tensor([[1.4, 0.0, 0.0, 0.0]])
    found = measure_states(
        empirical(points), torch.cat([points[:2], between]), points, 0.3, [0.1, 0.3, 0.6], delta=0.5
    )
    assert found.free_energy[2] > found.free_energy[:2].max()
    assert torch.equal(found.exact, found.free_energy)
    assert found.slope[:2].max() < 1e-6 < 0.1 < found.slope[2]
    assert found.eigenvalues[:2] == pytest.approx(torch.ones(2, 4).numpy(), abs=1e-4)
    assert found.local_dimension[:, :2].abs().max() < 1e-2
    memories, other = found.plain(slice(0, 2)), found.plain(slice(2, 3))
    assert memories["critical_noise"] == [0.6, 0.6] and other["critical_noise"] == [0.0]
    assert memories["count"] == 2 and len(other["recovered"]["share"]) == 3
    assert other["V"] == [found.free_energy[2].item()]
