"""The monitor's benchmark runs, and its parts make up the look they are parts of."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.monitor import CONFIGS, DEFAULT_IMAGES, PARTS, main


def test_shares_follow_from_the_times(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    threads = torch.get_num_threads()
    file = tmp_path / "monitor.json"
    arguments = ["--config", CONFIGS[0], "--quick", "--rounds", "1", "--steps", "1"]
    try:
        (row,) = main([*arguments, "--json", str(file)])
    finally:
        torch.set_num_threads(threads)
    assert "digits/energy_mlp" in capsys.readouterr().out
    assert json.loads(file.read_text())[0]["share"] == row.share
    assert row.share == pytest.approx(row.look / (row.step * DEFAULT_IMAGES / 64))
    assert row.config_share == pytest.approx(row.share * DEFAULT_IMAGES / 32_000)
    assert tuple(row.parts) == tuple(PARTS)
    assert {name for name, taken in row.parts.items() if taken} == {*PARTS} - {"calibration"}
