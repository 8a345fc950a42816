"""The retrieval benchmark runs; a memory returns its digits and a trained energy comes closer."""

from pathlib import Path

import pytest

from benchmarks.retrieval import BITS, IMAGES, main


def test_errors_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = main(["--count", "1", "--sigma_min", "0.2", "--steps", "1", "--out", str(tmp_path)])
    assert len(rows) == len(BITS) + len(IMAGES)
    assert all(row.rises == 0 and row.retrieved < row.corrupted for row in rows)
    assert all(row.recalled == row.at_rest == 1 for row in rows[: len(BITS)])
    assert "held-out" in capsys.readouterr().out
    assert all((tmp_path / name).stat().st_size > 5000 for name in ("memory.png", "energy.png"))


def test_a_mistake_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--count", "0", "--out", str(tmp_path)])
    assert stop.value.code == 2 and "--count" in capsys.readouterr().err
