"""Basins of two points, of a line and of a square, whose borders are known."""

import math
from pathlib import Path

import pytest
import torch
from scipy.stats import binomtest, norm
from torch import Tensor
from torch.testing import assert_close

import energydiff
from energydiff.energies import EmpiricalData, Energy
from energydiff.errors import UserError
from energydiff.landscape.basins import basin_map, basin_of, basin_volume, recovery, wilson
from energydiff.landscape.search import descend, newton
from energydiff.landscape.surface import Surface
from energydiff.memory import LogSumExpMemory
from energydiff.random import PROBE, keyed_normal
from energydiff.sampling import Heun, karras_sigmas

ROOT = Path(__file__).parents[2]


def pair(dim: int, mu: float = 1.0) -> Tensor:
    """±μ along the first axis, (2, dim)."""
    points = torch.zeros(2, dim, dtype=torch.float64)
    points[:, 0] = torch.tensor([mu, -mu])
    return points


def rest(surface: Surface, x: Tensor, sigma: float) -> Tensor:
    return newton(surface, descend(surface, x, sigma), sigma).x


# Recovery across noise: of two points the midplane is what may not be crossed


@pytest.mark.parametrize("dim", [1, 8])
@pytest.mark.parametrize("kind", ["data", "memory"])
def test_a_trial_returns_unless_noise_crosses_the_midplane(dim: int, kind: str) -> None:
    points, trials = pair(dim), 100
    energy: Energy = EmpiricalData(points)
    if kind == "memory":
        energy = LogSumExpMemory(10.0).store(points)
    sigmas = torch.tensor([0.3, 0.6, 1.0, 2.0])
    found = recovery(energy, points, sigmas, delta=0.1, trials=trials, sigma_min=0.02, chunk=64)
    noise = keyed_normal(0, range(2 * trials), (dim,), PROBE, torch.float64)
    along = noise[:, 0].view(2, trials) * torch.tensor([[1.0], [-1.0]])
    expected = torch.stack([(s * along > -1).sum(1) for s in sigmas])
    assert_close(found.returned, expected)
    mean, low, high = found.curve
    exact = torch.from_numpy(norm.cdf(1 / sigmas.numpy()))
    assert bool((mean[:2] >= mean[2:]).all() and (low <= exact).all() and (exact <= high).all())


def test_the_critical_noise_is_the_largest_level_that_still_returns() -> None:
    """Of many trials at share p it tends to μ/Φ⁻¹(p), and the radius to √d times that."""
    points, sigmas = pair(4), torch.arange(0.5, 1.2, 0.02)
    found = recovery(EmpiricalData(points), points, sigmas, delta=0.1, trials=400, sigma_min=0.02)
    assert found.critical_noise(0.9).tolist() == pytest.approx([1 / norm.ppf(0.9)] * 2, abs=0.08)
    lengths = math.sqrt(2) * math.gamma(2.5) / math.gamma(2)  # of four normal numbers
    assert_close(
        found.radius(), found.critical_noise() * lengths, rtol=0.05, atol=0, check_dtype=False
    )
    far = recovery(EmpiricalData(points), points, [50.0], delta=0.1, trials=10, sigma_min=0.02)
    assert float(far.critical_noise().max()) == 0


def test_a_share_has_the_interval_of_scipy() -> None:
    for successes, trials in ((0, 10), (3, 10), (10, 10), (400, 512)):
        exact = binomtest(successes, trials).proportion_ci(method="wilson")
        low, high = wilson(torch.tensor(successes).double(), trials)
        assert (float(low), float(high)) == pytest.approx((exact.low, exact.high), abs=1e-6)


def test_nonsense_is_refused() -> None:
    points = pair(1)
    for sigmas, delta, trials in (([0.01], 0.1, 10), ([1.0], 0.0, 10), ([1.0], 0.1, 0)):
        with pytest.raises(UserError, match="recovery needs"):
            recovery(
                EmpiricalData(points), points, sigmas, delta=delta, trials=trials, sigma_min=0.02
            )
    with pytest.raises(UserError, match="no noise range"):
        recovery(EmpiricalData(points), points, [1.0], delta=0.1)


# Basins at one noise


def test_a_map_of_a_square_is_its_quadrants() -> None:
    corners = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]]).double()
    surface, sigma = Surface(EmpiricalData(corners)), 0.6
    minima = rest(surface, corners, sigma)
    found = basin_map(surface, sigma, minima, low=-2, high=2, size=20)
    assert found.shape == (20, 20)
    assert bool((found[10:, 10:] == 0).all() and (found[10:, :10] == 1).all())
    assert bool((found[:10, :10] == 2).all() and (found[:10, 10:] == 3).all())
    with pytest.raises(UserError, match="3 dimensions needs a plane"):
        basin_map(Surface(EmpiricalData(torch.eye(3).double())), 0.3, minima, low=-1, high=1)


def test_a_map_of_a_plane_in_space() -> None:
    surface, plane = Surface(EmpiricalData(pair(3))), torch.eye(3).double()
    plane = torch.stack([torch.tensor([0.0, 0.3, 0.0]).double(), plane[2], plane[0]])
    found = basin_map(
        surface, 0.5, rest(surface, pair(3), 0.5), low=-1, high=1, size=8, plane=plane
    )
    assert bool((found[4:] == 0).all() and (found[:4] == 1).all())  # rows along the last axis


def test_a_saddle_is_in_no_basin() -> None:
    surface = Surface(EmpiricalData(pair(2)))
    minima = rest(surface, pair(2), 0.5)
    assert basin_of(surface, torch.zeros(1, 2).double(), 0.5, minima).tolist() == [-1]


def test_the_volume_of_an_interval() -> None:
    """Of three points on a line the middle one's basin ends at the two saddles."""
    points = torch.tensor([[-1.0], [0.0], [1.0]]).double()
    surface, sigma = Surface(EmpiricalData(points)), 0.3
    saddle = newton(surface, torch.tensor([[0.5]]).double(), sigma, 1).x.item()
    found = basin_volume(surface, sigma, rest(surface, points, sigma), 1, longest=2.0, rays=8)
    assert found.log_volume == pytest.approx(math.log(2 * saddle), abs=2e-3)
    assert found.capped == 0 and found.error < 1e-3


def test_the_volume_of_a_square() -> None:
    """Nine points on a grid: V is a sum over coordinates, the middle basin a square."""
    ticks = torch.tensor([-1.0, 0.0, 1.0]).double()
    surface, sigma = Surface(EmpiricalData(torch.cartesian_prod(ticks, ticks))), 0.3
    minima = rest(surface, torch.cartesian_prod(ticks, ticks), sigma)
    line = Surface(EmpiricalData(ticks[:, None]))
    saddle = newton(line, torch.tensor([[0.5]]).double(), sigma, 1).x.item()
    found = basin_volume(surface, sigma, minima, 4, longest=2.0, rays=200)
    assert abs(found.log_volume - math.log(4 * saddle**2)) < 3 * found.error + 2e-3
    assert 0.005 < found.error < 0.05
    assert bool((found.radius >= saddle - 1e-2).all())


def test_the_volume_of_half_a_space_is_cut_at_the_longest_ray() -> None:
    """A ball of radius R about the minimum without the cap beyond the midplane, d = 3."""
    surface, sigma, R = Surface(EmpiricalData(pair(3))), 0.5, 2.0
    minima = rest(surface, pair(3), sigma)
    cut = R - float(minima[0, 0])
    exact = 4 / 3 * math.pi * R**3 - math.pi * cut**2 * (3 * R - cut) / 3
    found = basin_volume(surface, sigma, minima, 0, longest=R, rays=400)
    assert abs(found.log_volume - math.log(exact)) < 3 * found.error
    assert found.capped == pytest.approx(1 - cut / (2 * R), abs=0.06)  # the area of the sphere left


def test_of_a_trained_energy() -> None:
    """Little noise is undone, much is not."""
    model = energydiff.load(ROOT / "pretrained/digits_energy_unet")
    low, high = model.require_noise()
    grid = karras_sigmas(12, low, high)
    points = Heun(grid, final_denoise=True)(model, seeds=range(4), trace=False).samples
    found = recovery(model, points, [0.05, high], delta=1.0, trials=2, steps=8)
    assert found.share[0].min() == 1 and found.share[1].max() < 1
