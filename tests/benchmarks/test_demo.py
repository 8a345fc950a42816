"""The demo runs: two models of few images, their comparison, the page and the pictures."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import demo
from energydiff.evaluation import classifier


@pytest.mark.slow
def test_the_demo_leaves_the_page_the_pictures_and_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "SHOWN_IMAGES", 3_000)
    monkeypatch.setattr(demo, "CURVE", (6,))
    threads = torch.get_num_threads()
    try:
        summary = demo.run_demo(tmp_path, num_samples=40, total_images=256)
    finally:
        torch.set_num_threads(threads)
    for name in ("samples.png", "free_energy.png", "samples_and_free_energy.png"):
        assert (tmp_path / name).stat().st_size > 10_000, name
    assert "energy against baseline" in (tmp_path / "report.html").read_text()
    found = json.loads((tmp_path / "summary.json").read_text())
    assert found["held_out_loss"] == pytest.approx(summary["held_out_loss"])
    assert found["a"]["certificate"]["steps"] == 40 * 19 and found["b"]["certificate"] is None
    assert found["a"]["asymmetry"] < 1e-4 < found["b"]["asymmetry"]
    assert found["provenance"]["samples"] == 40
