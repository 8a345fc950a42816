"""Morse graphs of point sets whose graphs are known."""

import math

import networkx
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from energydiff import UserError
from energydiff.energies import EmpiricalData, Energy
from energydiff.landscape.critical import CriticalPoints
from energydiff.landscape.exploration import Effort, Landscape, explore
from energydiff.landscape.strings import neighbours, string, summits
from energydiff.landscape.surface import Surface

ISOSCELES = torch.tensor([[0.95, 0.0], [-0.7, math.sqrt(0.75)], [-0.7, -math.sqrt(0.75)]]).double()
LITTLE = Effort(starts=12, noise=40, soft=2, index_two=4)


def explored(data: Tensor, sigma: float) -> Landscape:
    return explore(Surface(EmpiricalData(data)), data, sigma, LITTLE)


def test_a_string_between_two_wells_passes_the_saddle() -> None:
    data = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double()
    surface = Surface(EmpiricalData(data))
    path, value = string(surface, data[:1], data[1:], 0.3, images=21, rounds=60)
    top, along, which = summits(path, value)
    assert which.tolist() == [0]
    assert_close(top, torch.full((1, 2), 0.5).double(), rtol=0, atol=1e-3)
    assert abs(float((along * torch.tensor([1.0, 1.0])).sum())) < 1e-3
    lengths = path.diff(dim=1).norm(dim=2)
    assert float(lengths.max() / lengths.min()) < 1.05


def test_neighbours_are_pairs_of_the_nearest() -> None:
    pairs = neighbours(torch.tensor([[0.0], [1.0], [10.0], [11.5]]).double(), 1)
    assert pairs.tolist() == [[0, 1], [2, 3]]


def test_the_triangle_with_a_minimum_in_the_middle() -> None:
    """T5 at σ = .72: every saddle joins a corner's minimum with that of the centre."""
    points = torch.tensor([[math.cos(a), math.sin(a)] for a in (0.3, 2.3944, 4.4888)]).double()
    graph = explored(points, 0.72).graph
    centre = int(graph.minima.x.norm(dim=1).argmin())
    assert len(graph.minima) == 4 and len(graph.saddles) == 3
    assert all(centre in row for row in graph.ends.tolist())
    others = {end for row in graph.ends.tolist() for end in row} - {centre}
    assert len(others) == 3
    assert len(graph.components()) == 1 and not bool(graph.flips.any())
    assert bool((graph.hits < 0).all())


def test_minima_merge_from_the_lowest_saddle_up() -> None:
    """Four points on a line in pairs: near ones first, the pairs last; heights are the barriers."""
    data = torch.tensor([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0], [4.1, 0.0]]).double()
    graph = explored(data, 0.35).graph
    assert len(graph.minima) == 4 and len(graph.saddles) == 3
    merges = graph.merges()
    assert [round(m.level, 9) for m in merges] == sorted(round(m.level, 9) for m in merges)
    place = graph.minima.x[:, 0]
    joined = [{round(float(place[i])) for i in merge.groups} for merge in merges]
    assert joined[0] == {0, 1} and joined[1] == {3, 4} and len(merges) == 3
    heights = graph.barriers
    for saddle, (one, other) in enumerate(graph.ends.tolist()):
        assert_close(
            heights[saddle],
            graph.saddles.free_energy[saddle] - graph.minima.free_energy[[one, other]],
        )


@pytest.mark.parametrize(
    ("sigma", "connected"), [(0.65, 0), (0.66, 1), (0.70, 1), (0.76, 1), (0.775, 0)]
)
def test_a_saddle_connection_that_symmetry_keeps(sigma: float, connected: int) -> None:
    """T8 at δ = 0: a branch runs along the axis into the other saddle for σ in (.65773, .77324),
    and flips under either nudge."""
    graph = explored(ISOSCELES, sigma).graph
    assert int((graph.hits >= 0).sum()) == connected
    assert int(graph.flips.sum()) == connected


def test_off_symmetry_there_is_no_connection() -> None:
    moved = ISOSCELES + torch.tensor([[0.0, 0.03], [0.0, 0.0], [0.0, 0.0]])
    graph = explored(moved, 0.70).graph
    assert bool((graph.hits < 0).all()) and not bool(graph.flips.any())
    assert len(graph.components()) == 1


def test_a_graph_goes_to_networkx_and_back() -> None:
    graph = explored(ISOSCELES, 0.6).graph
    again = networkx.node_link_graph(graph.node_link(), edges="edges")
    assert again.number_of_nodes() == 3 and again.number_of_edges() == 3
    assert {data["saddle"] for *_, data in again.edges(data=True)} == {0, 1, 2}


def test_stages_hand_back_what_was_found() -> None:
    kept: dict[str, CriticalPoints] = {}

    def stage(name, work):
        if name not in kept:
            kept[name] = work()
        return kept[name]

    data, surface = ISOSCELES, Surface(EmpiricalData(ISOSCELES))
    first = explore(surface, data, 0.6, LITTLE, stage=stage)
    again = explore(surface, data, 0.6, LITTLE, stage=lambda name, work: kept[name])
    assert_close(again.points.x, first.points.x)
    assert {"minima", "saddles", "index 2"} <= kept.keys()


class Slope(Energy):
    """V without a minimum: it falls for ever along the first coordinate."""

    shape = (2,)

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        return (x[:, 0] + 0.1 * x[:, 0].sin() + 0.5 * x[:, 1].square()) / sigma.square()


def test_no_minimum_is_a_sentence() -> None:
    with pytest.raises(UserError, match=r"no minimum of V was found at sigma = 0.5 from 12 starts"):
        explore(Surface(Slope()), torch.randn(20, 2).double(), 0.5, LITTLE)
