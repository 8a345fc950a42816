"""The landscape on the page: the graph of a folder, its images, and a folder that is found."""

from pathlib import Path
from typing import Any

import pytest
import torch

from energydiff.data import Normalization
from energydiff.energies import EmpiricalData
from energydiff.errors import UserError
from energydiff.landscape import Effort, Landscape, Surface, explore
from energydiff.landscape.record import open_landscape, write_landscape
from energydiff.report.page import PageModel, page_landscape, write_page

EFFORT = Effort(starts=4, neighbours=2, soft=1, noise=4, rounds=1, index_two=1)


@pytest.fixture(scope="module")
def landscape() -> Landscape:
    """Of four images far from each other: each is a minimum."""
    data = torch.eye(36, dtype=torch.float64)[:4].view(4, 1, 6, 6) * torch.tensor(
        [1.0, 1.1, 1.2, 1.3], dtype=torch.float64
    ).view(4, 1, 1, 1)
    return explore(Surface(EmpiricalData(data)), data, 0.3, EFFORT)


@pytest.fixture(scope="module")
def folder(landscape: Landscape, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("landscape")
    write_landscape(landscape, landscape.graph.minima.x, {"sigma": 0.3}, out)
    return out


def test_a_landscape_is_opened_as_it_was_written(landscape: Landscape, folder: Path) -> None:
    again = open_landscape(folder)
    assert again.graph.merges() == landscape.graph.merges()
    assert torch.equal(again.graph.minima.x, landscape.graph.minima.x)
    joined = (landscape.graph.ends >= 0).all(1)
    ends = [graph.ends[joined].sort(1).values for graph in (again.graph, landscape.graph)]
    assert torch.equal(*ends)
    assert len(again.points) == len(landscape.points)


def test_every_minimum_and_every_joint_has_its_image(landscape: Landscape, folder: Path) -> None:
    shown = page_landscape(folder, "model", Normalization(0, 1))
    assert shown is not None
    graph = landscape.graph
    _, minima, saddles = shown.figure.data
    assert len(minima.x) == len(graph.minima) == 4
    assert sorted(saddles.y) == pytest.approx(sorted(merge.level for merge in graph.merges()))
    numbers = [number for points in (minima, saddles) for number, _ in points.customdata]
    assert numbers == list(range(len(shown.images))) == list(range(7))


def test_points_that_are_no_images_have_none(tmp_path: Path) -> None:
    data = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    found = explore(Surface(EmpiricalData(data)), data, 0.5, EFFORT)
    write_landscape(found, data, {"sigma": 0.5}, tmp_path)
    shown = page_landscape(tmp_path, "points", Normalization(0, 1))
    assert shown is not None and shown.images == []


def test_no_landscape_is_none_and_half_of_one_is_refused(folder: Path, tmp_path: Path) -> None:
    assert page_landscape(tmp_path, "model", None) is None
    (tmp_path / "critical_points.npz").write_bytes((folder / "critical_points.npz").read_bytes())
    with pytest.raises(UserError, match="no graph of a landscape"):
        page_landscape(tmp_path, "model", None)


def test_the_page_shows_it(models: list[PageModel], folder: Path, tmp_path: Path) -> None:
    shown = page_landscape(folder, "<energy>", Normalization(0, 1))
    assert shown is not None
    write_page(models[:1], None, {}, tmp_path / "page.html", [shown])
    text = (tmp_path / "page.html").read_text()
    assert 'data-landscape="0"' in text and "&lt;energy&gt;: 4 minima" in text
    assert all(uri in text for uri in shown.images)
    assert "There are no pictures" not in text


def test_pointing_at_a_saddle_shows_its_image(
    browser: Any, models: list[PageModel], folder: Path, tmp_path: Path
) -> None:
    shown = page_landscape(folder, "energy", Normalization(0, 1))
    assert shown is not None
    write_page(models[:1], None, {}, tmp_path / "page.html", [shown])
    browser.get((tmp_path / "page.html").as_uri())
    state = """const point = document.querySelector(".critical");
        return [point.querySelector("img").src, point.querySelector("p").textContent];"""
    image, words = browser.execute_script(state)
    assert image == shown.images[0] and words.startswith("minimum")
    where = browser.execute_script(
        """const plot = document.getElementById("landscape-figure-0");
        plot.scrollIntoView({ block: "center" });
        const { xaxis, yaxis, _size } = plot._fullLayout, box = plot.getBoundingClientRect();
        return { x: box.left + _size.l + xaxis.d2p(plot.data[2].x[1]),
                 y: box.top + _size.t + yaxis.d2p(plot.data[2].y[1]) };"""
    )
    for offset in (2, 0):
        event = {"type": "mouseMoved", "x": where["x"] + offset, "y": where["y"] - offset}
        browser.execute_cdp_cmd("Input.dispatchMouseEvent", event)
        browser.execute_script("return new Promise((done) => setTimeout(done, 200))")
    image, words = browser.execute_script(state)
    assert image == shown.images[len(shown.figure.data[1].x) + 1]
    assert words == shown.figure.data[2].customdata[1][1]
    assert [entry["message"] for entry in browser.get_log("browser")] == []
