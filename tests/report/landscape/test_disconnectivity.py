"""Disconnectivity graphs: heights are those of the merges, no branches cross, all is written."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from energydiff.data import Normalization
from energydiff.errors import UserError
from energydiff.landscape.morse import MorseGraph
from energydiff.report.landscape import disconnectivity_plot
from energydiff.report.landscape.disconnectivity import caption, draw_tree
from energydiff.report.landscape.tree import Tree, tree


def drawn(graph: MorseGraph, layout: Tree) -> dict[str, Any]:
    axes = Figure().add_subplot()
    draw_tree(axes, graph, layout)
    marks: dict[str, Any] = {str(mark.get_gid()): mark for mark in axes.collections}
    return marks | {str(line.get_gid()): line for line in axes.lines}


def segments(marks: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """Upright and level lines, each as pairs of ends."""
    lines = [np.asarray(line) for line in marks["branches"].get_segments()]
    upright = [line for line in lines if line[0, 0] == line[1, 0]]
    return upright, [line for line in lines if line[0, 1] == line[1, 1]]


def test_three_minima_by_hand(make_graph: Any) -> None:
    """1 joins 0 at 2; 2, though nearer to 1, joins the group at 3 under the name of 0."""
    graph = make_graph([0.0, 1.0, 0.5], [(3.0, 2, 1), (2.0, 0, 1), (9.0, 0, 2)])
    layout = tree(graph, 60)
    assert layout.roots == [0]
    assert [(m.level, m.groups) for m in layout.merges] == [(2.0, (0, 1)), (3.0, (0, 2))]
    assert layout.places == {2: 0, 0: 1, 1: 2} or layout.places == {1: 0, 0: 1, 2: 2}
    upright, _ = segments(drawn(graph, layout))
    ends = {line[0, 1]: line[1, 1] for line in upright}
    assert (ends[1.0], ends[0.5]) == (2.0, 3.0)
    assert ends[0.0] > 3.0


def test_heights_are_those_of_the_merges_and_of_the_minima(random_graph: MorseGraph) -> None:
    marks = drawn(random_graph, tree(random_graph, 60))
    levels = sorted(merge.level for merge in random_graph.merges())
    np.testing.assert_allclose(sorted(marks["joints"].get_offsets()[:, 1]), levels)
    leaves = marks["minima"].get_offsets()[:, 1]
    np.testing.assert_allclose(sorted(leaves), sorted(random_graph.minima.free_energy))


def test_no_branches_cross(random_graph: MorseGraph) -> None:
    """A level line meets upright ones only at its own ends."""
    upright, level = segments(drawn(random_graph, tree(random_graph, 60)))
    for (left, height), (right, _) in (sorted(line.tolist()) for line in level):
        inside = [u for u in upright if left < u[0, 0] < right]
        assert not [u for u in inside if u[:, 1].min() <= height <= u[:, 1].max()]


def test_every_minimum_has_a_place_of_its_own(random_graph: MorseGraph) -> None:
    layout = tree(random_graph, 60)
    assert sorted(layout.places) == list(range(60))
    assert sorted(layout.places.values()) == [*range(40), *range(41, 61)]


def test_parts_that_are_not_joined_end_at_a_dashed_line(
    random_graph: MorseGraph, make_graph: Any
) -> None:
    layout = tree(random_graph, 60)
    assert layout.roots == [0, 40]
    assert "not joined" in drawn(random_graph, layout)
    assert caption(random_graph, layout) == (
        "60 minima and 88 index-1 saddles of V, in 2 parts that no saddle found joins"
    )
    joined = make_graph([0.0, 1.0], [(2.0, 0, 1)])
    assert "not joined" not in drawn(joined, tree(joined, 60))
    assert caption(joined, tree(joined, 60)) == "2 minima and 1 index-1 saddle of V"


def test_of_many_minima_the_deepest_are_drawn_at_unchanged_heights(
    random_graph: MorseGraph,
) -> None:
    layout = tree(random_graph, 10)
    every = {merge.groups[1]: merge for merge in random_graph.merges()}
    value = random_graph.minima.free_energy.tolist()
    depth = {m: merge.level - value[m] for m, merge in every.items()}
    deepest = sorted(depth, key=lambda m: -depth[m])[:8]
    assert set(layout.places) == {0, 40, *deepest}
    assert layout.merges == [every[m.groups[1]] for m in layout.merges]
    assert caption(random_graph, layout).startswith("The 10 of 60 minima with the highest barriers")


@pytest.mark.parametrize("leaves", [12, 60])
def test_it_is_written_with_an_image_for_every_leaf(
    random_graph: MorseGraph, tmp_path: Path, leaves: int
) -> None:
    normalization = Normalization(0, 255)
    disconnectivity_plot(random_graph, tmp_path / "tree.svg", normalization, leaves)
    text = (tmp_path / "tree.svg").read_text()
    assert sum(f'id="minimum-{i}"' in text for i in range(60)) == leaves
    disconnectivity_plot(random_graph, tmp_path / "tree.png", normalization, leaves)
    with Image.open(tmp_path / "tree.png") as picture:
        assert picture.width > picture.height


def test_a_single_minimum_is_drawn(make_graph: Any, tmp_path: Path) -> None:
    disconnectivity_plot(make_graph([1.0], []), tmp_path / "one.png")
    assert (tmp_path / "one.png").is_file()


def test_what_cannot_be_drawn_is_refused(random_graph: MorseGraph, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no minimum"):
        nothing = MorseGraph(
            random_graph.minima[:0], random_graph.saddles[:0], *[torch.empty(0, 2)] * 3
        )
        disconnectivity_plot(nothing, tmp_path / "none.png")
    with pytest.raises(UserError, match="not images"):
        flat = replace(random_graph.minima, x=random_graph.minima.x.flatten(1))
        disconnectivity_plot(
            replace(random_graph, minima=flat), tmp_path / "flat.png", Normalization(0, 255)
        )
