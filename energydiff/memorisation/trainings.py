"""Trainings by ``energydiff fit``, several at a time; what is trained already is kept."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from energydiff.errors import UserError
from energydiff.progress import progress


def train_missing(runs: Mapping[Path, Sequence[str]], jobs: int) -> None:
    """Train every run folder that has no export yet, with these arguments of ``energydiff fit``.

    Each in a process of one thread, its words in ``FOLDER.log``; one that was cut off goes on.

    Raises:
        UserError: a training failed; those under way end first.
    """

    def train(run: Path) -> None:
        run.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "energydiff", "fit", *runs[run]]
        command += ["--trainer.default_root_dir", str(run)]
        log = run.with_name(run.name + ".log")
        with log.open("a") as stream:
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            done = subprocess.run(
                command, stdout=stream, stderr=stream, env=environment, check=False
            )
        if done.returncode:
            said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            told = f" ({said[-1].strip()})" if said else ""
            raise UserError(f"training {run} failed{told}; see {log}.")

    missing = [run for run in runs if not (run / "export" / "model.yaml").is_file()]
    with ThreadPoolExecutor(jobs) as pool, progress("Training", len(missing)) as tell:
        under_way = [pool.submit(train, run) for run in missing]
        try:
            for done, one in enumerate(as_completed(under_way), start=1):
                one.result()
                tell(done)
        except BaseException:
            for one in under_way:
                one.cancel()
            raise
