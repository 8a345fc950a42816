"""Trainings by ``energydiff fit``, several at a time; what is trained already is kept."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

from energydiff.errors import UserError
from energydiff.progress import progress

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def train_missing(runs: Mapping[Path, Sequence[str]], jobs: int, command: str = "fit") -> None:
    """Train every run folder that has no export yet, with these arguments of ``energydiff fit``, or
    of another command that trains.

    Each in a process of one thread, its words in ``FOLDER.log``; one that was cut off goes on. What
    another process trains, even one that outlived whoever began it, is waited for.

    Raises:
        UserError: a training failed; those under way end first.
    """

    def train(run: Path) -> None:
        run.parent.mkdir(parents=True, exist_ok=True)
        arguments = [command, *runs[run], "--trainer.default_root_dir", str(run)]
        log = run.with_name(run.name + ".log")
        with _held(run.with_name(run.name + ".lock")) as held, log.open("a") as stream:
            if _is_trained(run):
                return
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            done = subprocess.run(
                [sys.executable, "-m", "energydiff", *arguments],
                stdout=stream,
                stderr=stream,
                env=environment,
                check=False,
                pass_fds=held,
            )
        if done.returncode:
            said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            told = f" ({said[-1].strip()})" if said else ""
            raise UserError(f"training {run} failed{told}; see {log}.")

    missing = [run for run in runs if not _is_trained(run)]
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


def _is_trained(run: Path) -> bool:
    return (run / "export" / "model.yaml").is_file()


@contextmanager
def _held(file: Path) -> Iterator[list[int]]:
    """Waits for a lock; the descriptors that a process must inherit to hold it until it ends."""
    with file.open("w") as lock:
        if fcntl is None:
            yield []
        else:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield [lock.fileno()]  # the file stays: others may hold it, or wait for it
