"""The bifurcation diagram of two points (T3), and marks of events and connections."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from energydiff.energies import EmpiricalData
from energydiff.errors import UserError
from energydiff.landscape.bifurcations.connections import Connection
from energydiff.landscape.bifurcations.diagram import Diagram, bifurcation_diagram
from energydiff.landscape.bifurcations.families import Noise
from energydiff.landscape.surface import Surface
from energydiff.report.landscape import bifurcation_plot
from energydiff.report.landscape.bifurcation import (
    SLANT,
    draw_branches,
    draw_connections,
    draw_events,
    oblique_axis,
)


@pytest.fixture(scope="module")
def diagram() -> Diagram:
    surface = Surface(EmpiricalData(torch.tensor([[-1.0], [1.0]], dtype=torch.float64)))
    start = torch.zeros(1, 1, dtype=torch.float64)
    return bifurcation_diagram(Noise(surface), start, 1.5, (0.5, 1.6))


def heights(diagram: Diagram) -> list[torch.Tensor]:
    return [branch.x[:, 0] for branch in diagram.branches]


def test_wells_are_solid_and_the_middle_is_dashed_below_the_pitchfork(diagram: Diagram) -> None:
    axes = Figure().add_subplot()
    draw_branches(axes, diagram, heights(diagram))
    for line in axes.lines:
        sigma, x = (np.asarray(data, dtype=float) for data in line.get_data())
        if line.get_gid() == "index-0":
            assert line.get_linestyle() == "-"
            away = np.abs(x) > 1e-9
            np.testing.assert_allclose(x[away], np.tanh(x[away] / sigma[away] ** 2), atol=1e-8)
            assert (sigma[~away] > 0.9).all()
        else:
            assert line.get_gid() == "index-1" and line.get_linestyle() != "-"
            np.testing.assert_allclose(x, 0, atol=1e-9)
            assert sigma.max() < 1.1
    assert {line.get_gid() for line in axes.lines} == {"index-0", "index-1"}


def test_the_pitchfork_is_marked_at_sigma_one(diagram: Diagram) -> None:
    axes = Figure().add_subplot()
    draw_events(axes, diagram, heights(diagram))
    (mark,) = axes.collections
    assert mark.get_gid() == "pitchfork"
    assert mark.get_offsets().tolist() == [[pytest.approx(1.0, abs=1e-6), pytest.approx(0.0)]]


def test_connections_are_a_star_or_a_band(diagram: Diagram) -> None:
    axes, middle = Figure().add_subplot(), torch.zeros(1, dtype=torch.float64)
    (number,) = [i for i, b in enumerate(diagram.branches) if float(b.x.abs().max()) < 1e-9]
    found = [
        Connection("crossing", (0.7, 0.7), number, -1, None, middle),
        Connection("persistent", (0.55, 0.8), number, -1, None, middle),
    ]
    draw_connections(axes, diagram, heights(diagram), found)
    (star,), (band,) = axes.collections, axes.lines
    assert star.get_offsets().tolist() == [[pytest.approx(0.7), pytest.approx(0.0)]]
    sigma = np.asarray(band.get_xdata(), dtype=float)
    assert 0.55 <= sigma.min() < sigma.max() <= 0.8


def test_it_is_written_over_x_and_over_v(diagram: Diagram, tmp_path: Path) -> None:
    for name, given in (("x.svg", {}), ("v.svg", {"free_energy": True})):
        options: dict[str, Any] = given
        bifurcation_plot(diagram, tmp_path / name, **options)
        text = (tmp_path / name).read_text()
        assert 'id="pitchfork"' in text and 'id="index-1"' in text


def test_the_axis_is_near_that_of_the_spread() -> None:
    x = torch.tensor([[3.0, 4.0], [-3.0, -4.0], [0.0, 0.0]], dtype=torch.float64) + 1
    axis = oblique_axis(x)
    along = torch.tensor([0.6, 0.8], dtype=torch.float64)
    assert float(axis @ along) == pytest.approx(1 / math.sqrt(1 + SLANT**2))
    assert float(axis.norm()) == pytest.approx(1)


def test_no_branch_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no branch"):
        bifurcation_plot(Diagram([], [], "sigma"), tmp_path / "none.png")
