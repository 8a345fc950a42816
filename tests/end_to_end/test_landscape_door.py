"""``energydiff landscape``: its folder, going on after an interruption, and its sentences."""

import json
import math
from pathlib import Path

import networkx
import numpy as np
import pytest
import torch

from energydiff.cli import main
from energydiff.data import Normalization
from energydiff.denoisers import build_denoiser
from energydiff.energies import Energy, NoiseRange
from energydiff.landscape import CriticalPoints, exploration
from energydiff.memory import LogSumExpMemory
from energydiff.potentials import MLP
from energydiff.saving import SavedModel, save_model

TRIANGLE = "[[0.95, 0], [-0.7, 0.8660254], [-0.7, -0.8660254]]"
LITTLE = ("--effort.starts", "12", "--effort.noise", "12")


def landscape(out: Path, *options: str) -> dict:
    assert main(["landscape", *options, *LITTLE, "--out", str(out)]) == 0
    return json.loads((out / "landscape.json").read_text())


def refused(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    with pytest.raises(SystemExit) as exit:
        main(["landscape", *options])
    assert exit.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


@pytest.fixture(scope="module")
def triangle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("landscape") / "triangle"
    landscape(out, "--points", TRIANGLE, "--sigma", "0.6")
    return out


def test_the_folder_holds_what_the_page_says(triangle: Path) -> None:
    record = json.loads((triangle / "landscape.json").read_text())
    assert record["counts"] == {"index 0": 3, "index 1": 3, "index 2": 1}
    assert record["euler_sum"] == 1 and record["complete"] and record["proved"]
    assert record["parts"] == [3]
    points = record["critical_points"]
    assert [p["index"] for p in points] == [0, 0, 0, 1, 1, 1, 2]
    assert all(p["trust"] == "proved" and p["grad_norm"] <= 1e-8 * math.sqrt(2) for p in points)
    assert all(p["distance"] < 0.3 for p in points[:3])  # each near its pattern
    assert {p["nearest_sample"] for p in points[:3]} == {0, 1, 2}
    with np.load(triangle / "critical_points.npz") as arrays:
        assert arrays["x"].shape == (7, 2) and arrays["x"].dtype == np.float64
        assert {"sigma", "index", "V", "E", "grad_norm", "eigenvalues", "margin"} <= set(arrays)
    graph = networkx.read_graphml(triangle / "graph.graphml")
    assert graph.number_of_nodes() == 3 and graph.number_of_edges() == 3
    assert not (triangle / "stages").exists()
    assert {"disconnectivity.png", "plane.png"} <= {file.name for file in triangle.iterdir()}


def test_an_interrupted_study_goes_on_by_the_same_command(
    tmp_path: Path, triangle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    options = ("--points", TRIANGLE, "--sigma", "0.6")
    with monkeypatch.context() as patched:
        patched.setattr(exploration, "morse_graph", stop)
        with pytest.raises(SystemExit) as exit:
            landscape(tmp_path, *options)
        assert exit.value.code == 130
    kept = {file.name for file in (tmp_path / "stages").iterdir()}
    assert kept == {"0_minima.npz", "0_saddles.npz"}
    with monkeypatch.context() as patched:
        patched.setattr(exploration, "minima", stop)  # nothing is searched for again
        patched.setattr(exploration, "_saddles", stop)
        again = landscape(tmp_path, *options)
    first = json.loads((triangle / "landscape.json").read_text())
    assert again["counts"] == first["counts"]


def test_a_folder_of_another_study_is_left_alone(
    triangle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (triangle / "landscape.json").read_bytes()
    options = ("--points", TRIANGLE, "--sigma", "0.7", *LITTLE, "--out", str(triangle))
    assert "other settings (sigma): give another --out" in refused(capsys, *options)
    assert (triangle / "landscape.json").read_bytes() == before


def test_bifurcations_of_three_patterns(tmp_path: Path) -> None:
    """T8 at δ = 0: its fold, its pitchforks and the connection between the two saddles."""
    landscape(tmp_path, "--points", TRIANGLE, "--sigma", "0.7", "--sigmas", "[0.55, 0.9]")
    found = json.loads((tmp_path / "bifurcations.json").read_text())
    events = sorted((e["kind"], round(e["parameter"], 4)) for e in found["events"])
    assert events == [("fold", 0.7732), ("pitchfork", 0.6577), ("pitchfork", 0.7818)]
    (persistent,) = [c for c in found["connections"] if c["kind"] == "persistent"]
    assert persistent["sigma"] == pytest.approx([0.65773, 0.77324], abs=1e-4)


def test_a_memory_is_explored_from_its_patterns(tmp_path: Path) -> None:
    patterns = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, -1.0]]).double()
    memory = LogSumExpMemory(beta=8.0).store(patterns)
    save_model(SavedModel(memory, Normalization(0, 1)), tmp_path / "memory")
    record = landscape(tmp_path / "out", str(tmp_path / "memory"), "--sigma", "1")
    assert record["counts"]["index 0"] >= 3 and record["euler_sum"] == 1


@pytest.fixture(scope="module")
def run(unet_run: Path) -> Path:
    return unet_run


def test_a_trained_model_is_compared_with_its_data(tmp_path: Path, run: Path) -> None:
    options = ("--sigma", "0.5", "--effort.rounds", "0", "--effort.index_two", "0")
    options += ("--effort.soft", "0", "--effort.neighbours", "1")
    out = tmp_path / "out"
    assert main(["landscape", str(run), *options, "--effort.starts", "3", "--effort.noise", "1",
                 "--basins", "0", "--out", str(out)]) == 0  # fmt: skip
    record = json.loads((out / "landscape.json").read_text())
    assert record["counts"]["index 0"] >= 1 and not record["proved"]
    points = CriticalPoints.open(out / "critical_points.npz")
    assert bool((points.grad_norm <= 1e-8 * math.sqrt(points.x[0].numel())).all())
    assert all(p["trust"] in ("observed", "no") for p in record["critical_points"])


def saved(folder: Path, model: Energy, low: float = 0.1, high: float = 2.0) -> str:
    model.noise = NoiseRange(low, high)
    save_model(SavedModel(model, Normalization(0, 1)), folder)
    return str(folder)


def test_mistakes_are_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    energy = build_denoiser(MLP((2,), width=8, depth=1), 0.5, "inner_product")
    baseline = build_denoiser(MLP((2,), width=8, depth=1), 0.5, "unconstrained")
    model = saved(tmp_path / "energy", energy)
    plain = saved(tmp_path / "baseline", baseline)
    points = ("--points", TRIANGLE)
    assert "give a model, or --points" in refused(capsys, "--sigma", "0.5")
    assert "give a model, or --points" in refused(capsys, model, *points)
    assert "unconstrained denoiser" in refused(capsys, plain)
    assert "does not say what data it was trained on" in refused(capsys, model)
    assert "does not exist" in refused(capsys, str(tmp_path / "nowhere"))
    assert "outside the range" in refused(capsys, *points, "--sigma", "-1")
    assert "rows of equal length" in refused(capsys, "--points", "[[0, 1], [2]]")
    assert "no option --sigmma (did you mean --sigma?)" in refused(capsys, *points, "--sigmma", "1")
