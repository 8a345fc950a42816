"""``energydiff check``: a table of every way, and an exit code that says whether all hold."""

from pathlib import Path
from typing import Any

FAULTY = Path(__file__).parents[1] / "checking" / "faulty.py"
CONFIG = """
data:
  source: Digits
model:
  backbone: {}
"""


def test_a_network_that_is_wrong_when_shared_out_is_code_3(door: Any, tmp_path: Path) -> None:
    """As training would find it on several devices; otherwise nothing is wrong with it."""
    config = tmp_path / "faulty.yaml"
    config.write_text(CONFIG.format("faulty.Hoarding"))
    done = door("check", config, "--import", FAULTY)
    assert done.code == 3, done.err
    assert done.out.count("FAILED") == 2 and "It is not: see FAILED above." in done.out
    done = door("check", config, "--import", FAULTY, "--sharded", "false")
    assert done.code == 0, done.err
    assert "It is, in every way that was taken." in done.out
