"""The package on a device that is not the CPU, in a process of its own: its tensors say where they
are, and the host notes where it would wait."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow  # CI runs it by itself
def test_another_device() -> None:
    command = [sys.executable, "-m", "pytest", "tests/another_device/checks.py", "-p", "no:xdist"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
