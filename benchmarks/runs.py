"""Trainings by ``energydiff fit``, several at a time; what is trained already is kept."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from energydiff.errors import UserError
from energydiff.progress import progress


def run_folder(out: Path, name: str, seed: int) -> Path:
    """Where the run of a design of this name with one seed lives."""
    words = re.findall(r"\w+", name)
    return out / f"{'_'.join(words)}_{seed}"


def train_missing(runs: Mapping[Path, Sequence[str]], jobs: int) -> None:
    """Train every run folder that has no export yet, with these arguments of ``energydiff fit``."""

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
            raise UserError(f"training {run} failed; see {log}.")

    missing = [run for run in runs if not (run / "export" / "model.yaml").is_file()]
    with ThreadPoolExecutor(jobs) as pool, progress("Training", len(missing)) as tell:
        for done, _ in enumerate(pool.map(train, missing), start=1):
            tell(done)
