"""Galleries of critical points that are images."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from energydiff.data import Normalization
from energydiff.errors import UserError
from energydiff.landscape.morse import MorseGraph
from energydiff.report.landscape import minima_gallery, saddle_gallery

GREY = Normalization(0, 255)


def test_minima_stand_with_their_v_from_the_lowest(
    random_graph: MorseGraph, tmp_path: Path
) -> None:
    minima_gallery(random_graph.minima, GREY, tmp_path / "minima.svg", most=5)
    text = (tmp_path / "minima.svg").read_text()
    places = [text.find(f"<!-- {v:#.3g} -->") for v in sorted(random_graph.minima.free_energy)[:6]]
    assert places[:5] == sorted(places[:5]) and min(places[:5]) > 0
    assert "5 of 60 minima" in text


def test_a_saddle_stands_between_its_minima_with_both_barriers(
    make_graph: Any, tmp_path: Path
) -> None:
    graph = make_graph([1.0, 0.5, 0.75], [(3.0, 0, 1), (2.0, 1, 2), (9.0, 0, 2)])
    saddle_gallery(graph, GREY, tmp_path / "saddles.svg")
    text = (tmp_path / "saddles.svg").read_text()
    assert text.count("<image") == 6  # the third saddle joins what has merged
    places = [text.find(f"<!-- {barrier} -->") for barrier in ("2.5", "2", "1.5", "1.2")]
    assert places == sorted(places) and places[0] > 0
    saddle_gallery(graph, GREY, tmp_path / "saddles.png", most=1)
    with Image.open(tmp_path / "saddles.png") as picture:
        assert picture.width > 400


def test_nothing_to_show_is_told(make_graph: Any, tmp_path: Path) -> None:
    alone = make_graph([1.0], [])
    with pytest.raises(UserError, match="no saddle joins"):
        saddle_gallery(alone, GREY, tmp_path / "none.png")
    with pytest.raises(UserError, match="no minimum"):
        minima_gallery(alone.minima[:0], GREY, tmp_path / "none.png")
