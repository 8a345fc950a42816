"""Killed at twenty moments and started again, a run ends bitwise where it would have ended."""

import importlib
import multiprocessing
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

sys.path.append(str(Path(__file__).parent))  # of the processes too
killed_fit = importlib.import_module("killed_fit")
pytestmark = pytest.mark.slow

KILLS, STEPS = 20, 700
LIFE = 20  # steps after which the last of the kills comes
PATIENCE = 300.0
PARTS = ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers")
CODES = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}

context = multiprocessing.get_context("forkserver")  # with the imports of conftest.py done


class Run:
    """A run folder, and its processes while they live."""

    def __init__(self, folder: Path, config: Path, ranks: int, workers: int) -> None:
        folder.mkdir()
        self.folder, self.ranks, self.lives = folder, ranks, 0
        self.arguments = [
            *("fit", "--config", str(config), "--trainer.default_root_dir", str(folder / "run")),
            *("--model.total_images", str(32 * STEPS), "--data.num_workers", str(workers)),
            *("--checkpoint_every_images", str(32 * 5), "--finish.evaluations", "0"),
            *("--monitor.every_images", "0", "--val_every_images", "0"),
            *(
                "--trainer.devices",
                str(ranks),
                "--trainer.strategy",
                "ddp" if ranks > 1 else "auto",
            ),
            *("--trainer.callbacks+=killed_fit.TellSteps", "--trainer.logger=false"),
        ]

    def start(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.lives += 1
        self.told = self.folder / f"life{self.lives}"
        arguments = [*self.arguments, f"--trainer.callbacks.file={self.told}"]
        log = str(self.folder / "log")
        self.processes = [
            context.Process(target=killed_fit.fit, args=(arguments, log, rank, self.ranks, port))
            for rank in range(self.ranks)
        ]
        for process in self.processes:
            process.start()

    def end(self) -> list[Any]:
        """Waits for all of them: their exit codes."""
        until = time.monotonic() + PATIENCE
        for process in self.processes:
            process.join(max(0.0, until - time.monotonic()))
        codes = [process.exitcode for process in self.processes]
        for process in self.processes:
            process.kill()
        return codes

    def taken(self) -> int:
        """Steps that this life has taken."""
        return self.told.stat().st_size if self.told.exists() else 0

    def saved(self) -> int:
        """Steps that the last checkpoint counts."""
        try:
            return int(self.last()["global_step"])
        except FileNotFoundError:
            return 0

    def last(self) -> dict[str, Any]:
        return torch.load(self.folder / "run" / "checkpoints" / "last.ckpt", weights_only=True)


def tensors(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = [value[name] for name in sorted(value, key=str)]
    if isinstance(value, list | tuple):
        for part in value:
            yield from tensors(part)
    else:
        yield value


def same(one: Any, other: Any) -> bool:
    pairs = zip(tensors(one), tensors(other), strict=True)
    return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)


@pytest.fixture(scope="module", params=[1, 2], ids="{} ranks".format)
def uninterrupted(request, tiny_mlp: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("straight") / "run", tiny_mlp, request.param, workers=0)
    run.start()
    assert run.end() == [0] * run.ranks, (run.folder / "log").read_text()[-3000:]
    return run


@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
@pytest.mark.parametrize("workers", [0, 2], ids="{} workers".format)
def test_it_ends_where_it_would_have_ended(
    uninterrupted: Run, workers: int, number: signal.Signals, tiny_mlp: Path, tmp_path: Path
) -> None:
    """Every fourth kill comes while the run starts, the others while it trains."""
    chance = random.Random(f"{uninterrupted.ranks} {workers} {number}")
    run = Run(tmp_path / "run", tiny_mlp, uninterrupted.ranks, workers)
    saved = [0]
    for kill in range(KILLS):
        run.start()
        if kill % 4 == 3:
            time.sleep(chance.uniform(0, 1))
        else:
            steps, until = chance.randint(1, LIFE), time.monotonic() + PATIENCE
            while run.taken() < steps and time.monotonic() < until:
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.01))
        began = run.taken() > 0
        everybody = chance.random() < 0.5 or not began
        for process in run.processes if everybody else [chance.choice(run.processes)]:
            assert process.pid is not None
            _signal(process.pid, number)
        codes = run.end()
        if began:
            allowed = {CODES[number]} if number != signal.SIGKILL else {-9, 1, -6}
            assert set(codes) <= allowed, (codes, (run.folder / "log").read_text()[-3000:])
        saved.append(run.saved())
        assert saved[-1] < STEPS, "it was over before all kills"
    assert saved == sorted(saved) and len(set(saved)) > KILLS // 3
    run.start()
    assert run.end() == [0] * run.ranks, (run.folder / "log").read_text()[-3000:]
    one, other = run.last(), uninterrupted.last()
    assert one["global_step"] == STEPS
    for part in PARTS:
        assert same(one[part], other[part]), part


def _signal(process: int, number: signal.Signals) -> None:
    try:
        if number == signal.SIGKILL:  # with the workers of its loader
            os.killpg(process, number)
        else:
            os.kill(process, number)
    except ProcessLookupError:
        pass
