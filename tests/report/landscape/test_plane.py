"""Landscapes of the plane: marks by index, and manifolds where symmetry says they are."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from energydiff.energies import EmpiricalData
from energydiff.errors import UserError
from energydiff.landscape.surface import Surface
from energydiff.report.landscape import around, multiples, plane, plane_plot, plane_points
from energydiff.report.landscape.manifolds import branches, separatrices
from energydiff.report.landscape.plane import draw_plane

WINDOW = (-1.7, 1.9, -1.7, 1.7)
TWO = torch.tensor([[-1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
TALL = math.sqrt(3) / 2


def isosceles(delta: float) -> Surface:
    """The data of T8."""
    points = [[0.95, delta], [-0.7, TALL], [-0.7, -TALL]]
    return Surface(EmpiricalData(torch.tensor(points, dtype=torch.float64)))


def drawn(surface: Surface, sigma: float, **given: Any) -> dict[str, Any]:
    axes = Figure().add_subplot()
    draw_plane(axes, surface, plane_points(surface, sigma, WINDOW, 7), WINDOW, **given)
    marks = {str(mark.get_gid()): mark for mark in axes.collections}
    return marks | {str(image.get_gid()): image for image in axes.images}


@pytest.mark.parametrize(
    ("sigma", "counts"), [(0.25, [3, 3, 1]), (0.7, [3, 2, 0]), (1.0, [1, 0, 0])]
)
def test_every_critical_point_is_marked_by_its_index(sigma: float, counts: list[int]) -> None:
    marks = drawn(isosceles(0.0), sigma)
    found = [marks.get(f"index-{k}") for k in range(3)]
    assert [0 if mark is None else len(mark.get_offsets()) for mark in found] == counts
    for gid in ("stable manifolds", "unstable manifolds"):
        curves = marks[gid].get_segments() if gid in marks else []
        assert len(curves) == 2 * counts[1]


def test_two_points_are_parted_along_the_axis_of_symmetry() -> None:
    """T3: the border of basins is x = 0, and down from the saddle it is straight to the wells."""
    surface, sigma, reach = Surface(EmpiricalData(TWO)), 0.6, 3.0
    points = plane_points(surface, sigma, WINDOW, 6)
    for curve in separatrices(surface, points, reach):
        np.testing.assert_allclose(curve[:, 0], 0, atol=1e-6)
        assert abs(curve[-1, 1]) == pytest.approx(reach, abs=0.1)
    well = points.of_index(0).x[:, 0].abs()
    assert well == pytest.approx(torch.tanh(well / sigma**2).numpy(), abs=1e-7)
    ends = sorted(curve[-1, 0] for curve in branches(surface, points, reach))
    assert ends == pytest.approx([-float(well[0]), float(well[0])], abs=0.02)
    for curve in branches(surface, points, reach):
        np.testing.assert_allclose(curve[:, 1], 0, atol=1e-6)


def test_a_saddle_connection_is_drawn_only_where_symmetry_makes_it() -> None:
    """T8: at δ = 0 the way down from the right saddle ends on the left one, else beside it."""
    gaps = []
    for delta in (0.0, 0.06):
        points = plane_points(isosceles(delta), 0.7, WINDOW, 7)
        saddles = points.of_index(1).x
        left = saddles[saddles[:, 0].argmin()].numpy()
        ends = [curve[-1] for curve in branches(isosceles(delta), points, 3.0)]
        gaps.append(min(float(np.linalg.norm(end - left)) for end in ends))
    assert gaps[0] < 0.05 < 0.3 < gaps[1]


def test_basins_are_coloured_to_the_border(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plane, "BASIN_PIXELS", 40)
    axes = Figure().add_subplot()
    surface = Surface(EmpiricalData(TWO))
    points = plane_points(surface, 0.6, WINDOW, 6)
    draw_plane(axes, surface, points, WINDOW, basins=True)
    (image,) = [image for image in axes.images if image.get_gid() == "basins"]
    number = np.asarray(image.get_array())
    x = np.linspace(WINDOW[0], WINDOW[1], 2 * number.shape[1] + 1)[1::2]
    side = points.of_index(0).x[:, 0].numpy()[number] > 0
    assert (side == (x > 0)[None, :]).all()


def test_pictures_are_written(tmp_path: Path) -> None:
    surface = isosceles(0.0)
    levels = [plane_points(surface, sigma, WINDOW, 5) for sigma in (1.0, 0.7)]
    way = torch.linspace(0, 1, 5, dtype=torch.float64)[:, None, None] * torch.ones(1, 3, 2)
    plane_plot(surface, levels[1], tmp_path / "plane.svg", trajectories=way)
    text = (tmp_path / "plane.svg").read_text()
    assert all(f'id="{gid}"' in text for gid in ("index-0", "index-1", "trajectories"))
    multiples(surface, levels, tmp_path / "levels.png", WINDOW)
    assert (tmp_path / "levels.png").stat().st_size > 10_000


def test_the_window_is_the_data_and_a_margin() -> None:
    assert around(TWO, 0.25) == pytest.approx((-1.5, 1.5, -0.5, 0.5))


def test_only_the_plane_is_mapped() -> None:
    with pytest.raises(UserError, match="two variables"):
        plane_points(Surface(EmpiricalData(torch.eye(3))), 0.5, WINDOW)
