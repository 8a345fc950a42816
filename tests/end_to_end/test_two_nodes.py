"""Two nodes, as two torchrun agents on this machine: what stops one stops both, and both go on."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "configs" / "cluster" / "torchrun.sh"
SECONDS = 240


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def two_nodes(arguments: list[object], logs: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Starts both agents; kills what is left of them."""
    variables = {"NODES": "2", "FIRST": f"127.0.0.1:{free_port()}", "OMP_NUM_THREADS": "1"}
    variables |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    variables |= {"PYTHONPATH": str(ROOT)}
    logs.mkdir()
    agents = []
    for node in range(2):
        with (logs / f"{node}.txt").open("w") as output:
            agents.append(
                subprocess.Popen(
                    ["bash", SCRIPT, *map(str, arguments)],
                    cwd=ROOT,
                    env=os.environ | variables,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            )
    try:
        yield agents
    finally:
        for agent in agents:
            agent.terminate()  # and with it its worker, which a kill would leave behind
            agent.wait()


@pytest.mark.slow
def test_what_stops_one_node_stops_both_and_both_go_on(tiny_mlp: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["--config", tiny_mlp, "--trainer.default_root_dir", run]
    arguments += ["--model.total_images", 32 * 10**6, "--checkpoint_every_images", 0]
    arguments += ["--monitor.every_images", 0, "--val_every_images", 0]
    seen = 0
    for node in range(2):
        logs = tmp_path / f"logs{node}"
        with two_nodes(arguments, logs) as agents:
            end = time.monotonic() + SECONDS
            while not re.search("^image ", read(logs), re.MULTILINE):
                assert time.monotonic() < end, read(logs)
                time.sleep(0.2)
            agents[node].terminate()
            codes = [agent.wait(SECONDS) for agent in agents]
        assert all(codes), read(logs)
        assert "stopped by SIGTERM: run the same command again" in read(logs)
        steps = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
        assert steps > seen
        seen = steps
    assert "going on at image" in read(logs)


def read(logs: Path) -> str:
    return "".join(file.read_text() for file in sorted(logs.iterdir()))
