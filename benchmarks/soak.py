"""Hours of training in several processes that are killed again and again: is anything lost?

    python -m benchmarks.soak [--hours 2] [--every 180] [--ranks 2] [--out runs/soak] [-- OPTIONS …]

Every process notes each step: which images it took, and its memory. It is killed at moments drawn
by chance, with a mean time between them: SIGKILL to all processes, or SIGTERM, SIGUSR1 or Ctrl-C to
one or to all. Then the same command goes on. In the end every image must have been taken, and one
that was taken again after a kill must have been the same sample as before; memory must not grow
while a process lives. Writes soak.json and soak.png; exit code 1 if any of it failed. OPTIONS are
those of ``energydiff fit``, by default a small energy of the digits, read by two workers.
"""

import argparse
import os
import random
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import energydiff  # noqa: F401  (before torchvision)

# isort: split
import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray

from energydiff.files import write_json
from energydiff.progress import progress
from energydiff.report.style import ALARM, PALETTE, figure
from energydiff.saving import LAST_CHECKPOINT
from energydiff.training.checkpoint import Checkpoint

FIELDS = ("step", "first", "images", "samples", "bytes", "milliseconds")
ENTRY = struct.Struct(f"<{len(FIELDS)}q")
PAGE = os.sysconf("SC_PAGE_SIZE")
SETTLED = 30_000  # milliseconds of a process after which its memory should stay
CODES = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGUSR1: 143, signal.SIGINT: 130}
OPTIONS = (
    *("--config", "configs/digits/energy_mlp.yaml", "--model.total_images", "1000000000"),
    *("--data.num_workers", "2", "--checkpoint_every_images", "6400"),
    *("--monitor.every_images", "640000", "--val_every_images", "320000"),
)


class NoteSteps(Callback):
    """Appends an entry for every step to ``FOLDER/rank0-….steps``, a file per process."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        name = f"rank{trainer.global_rank}-{time.time_ns()}-{os.getpid()}.steps"
        self.file = (self.folder / name).open("ab")
        self.index = trainer.datamodule.stream.index  # type: ignore[attr-defined]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        counts = batch["count"].tolist()
        samples = zlib.crc32(np.array([self.index(n) for n in counts], np.int64).tobytes())
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
        entry = trainer.global_step, counts[0], len(counts), samples, resident
        self.file.write(ENTRY.pack(*entry, time.time_ns() // 1_000_000))
        self.file.flush()


def soak(command: Sequence[str], folder: Path, seconds: float, every: float) -> list[Any]:
    """Runs a command again and again until the time is up; what was done to it, kill by kill."""
    chance, kills, begun = random.Random(0), [], time.monotonic()
    with progress("Soaking (seconds)", round(seconds)) as tell, (folder / "log").open("ab") as log:
        while (left := seconds - (time.monotonic() - begun)) > 0:
            tell(round(seconds - left))
            born = time.time_ns()
            running = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
            number = chance.choice([*CODES])
            try:
                code = running.wait(min(chance.expovariate(1 / every), left))
                kills.append({"signal": "none", "code": code, "expected": None})
                break  # nobody killed it: look at the log
            except subprocess.TimeoutExpired:
                processes = _processes(folder, born)
            if not processes:  # it has not begun to train
                number = signal.SIGKILL
            code = _end(running, number, processes, chance)
            kills.append({"signal": number.name, "code": code, "expected": CODES[number]})
    return kills


def _processes(folder: Path, born: int) -> list[int]:
    """Those of the run started then that have begun to train."""
    parts = (file.stem.split("-") for file in folder.glob("*.steps"))
    return [int(process) for _, started, process in parts if int(started) > born]


def _end(
    running: "subprocess.Popen[bytes]",
    number: signal.Signals,
    processes: list[int],
    chance: random.Random,
) -> int:
    if number == signal.SIGKILL:
        os.killpg(running.pid, signal.SIGKILL)
        return running.wait()
    for process in chance.choice([processes, [chance.choice(processes)]]):
        os.kill(process, number)
    try:
        return running.wait(300)
    except subprocess.TimeoutExpired:  # it hangs, and its code says so
        os.killpg(running.pid, signal.SIGKILL)
        return running.wait()


def examine(lives: list[NDArray[np.int64]], steps: int, ranks: int) -> dict[str, Any]:
    """What the notes of all processes say of the steps that the last checkpoint counts."""
    notes = np.concatenate(lives)
    notes = notes[notes[:, 0] <= steps]
    same: dict[tuple[int, int], set[int]] = {}
    for _, first, images, samples, *_ in notes.tolist():
        same.setdefault((first, images), set()).add(samples)
    taken = sorted(same)
    ends = np.cumsum([0, *(images for _, images in taken)])
    settled = [life[life[:, 5] > life[0, 5] + SETTLED] for life in lives]
    growth = [int(life[-1, 4] - life[0, 4]) for life in settled if len(life)]
    return {
        "steps": steps,
        "processes": len(lives),
        "images": int(ends[-1]),
        "images_expected": steps * ranks * int(notes[0, 2]),
        "images_lost_or_doubled": sum(f != int(e) for (f, _), e in zip(taken, ends, strict=False)),
        "taken_again": len(notes) - len(taken),
        "other_samples_the_second_time": sum(len(samples) > 1 for samples in same.values()),
        "largest_growth_bytes": max(growth, default=0),
        "longest_life_seconds": max(float(life[-1, 5] - life[0, 5]) / 1e3 for life in lives),
    }


def read_notes(folder: Path) -> list[NDArray[np.int64]]:
    """Of every process that took a step, (steps, fields), without an entry cut short."""
    contents = [file.read_bytes() for file in folder.glob("*.steps")]
    whole = [content[: len(content) // ENTRY.size * ENTRY.size] for content in contents]
    return [np.frombuffer(c, "<i8").reshape(-1, len(FIELDS)) for c in whole if c]


def draw(lives: list[NDArray[np.int64]], file: Path) -> None:
    """Memory of every process and images seen, against time."""
    begun = min(int(life[0, 5]) for life in lives)
    with figure(file, 9, 4.5) as drawing:
        memory, images = drawing.subplots(2, 1, sharex=True)
        for life in lives:
            minutes = (life[:, 5] - begun) / 60_000
            memory.plot(minutes, life[:, 4] / 2**20, color=PALETTE[0], linewidth=0.8)
            memory.plot(minutes[-1], life[-1, 4] / 2**20, ".", color=ALARM, markersize=4)
            images.plot(minutes, life[:, 1], color=PALETTE[0], linewidth=0.8)
        memory.set(ylabel="MiB of a process", ylim=(0, None), title="Each line is a process")
        images.set(ylabel="image of the stream", xlabel="minutes", ylim=(0, None))


def main() -> int:
    """0, or 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--every", type=float, default=180.0, help="mean seconds between kills")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/soak"))
    parser.add_argument("options", nargs="*", default=[], help="of energydiff fit")
    given = parser.parse_args()
    notes = given.out / "notes"
    notes.mkdir(parents=True, exist_ok=True)
    noting = "--trainer.callbacks"
    command = [
        *(sys.executable, "-m", "energydiff", "fit", *(given.options or OPTIONS)),
        *("--trainer.default_root_dir", str(given.out / "run")),
        *("--trainer.devices", str(given.ranks)),
        *(["--trainer.strategy", "ddp"] if given.ranks > 1 else []),
        *(f"{noting}+=benchmarks.soak.NoteSteps", f"{noting}.folder={notes}"),
    ]
    kills = soak(command, notes, 3600 * given.hours, given.every)
    lives = read_notes(notes)
    found = examine(lives, Checkpoint.open(given.out / "run" / LAST_CHECKPOINT).steps, given.ranks)
    found["kills"] = Counter(kill["signal"] for kill in kills)
    found["unexpected_ends"] = [kill for kill in kills if kill["code"] != kill["expected"]]
    write_json(given.out / "soak.json", found)
    draw(lives, given.out / "soak.png")
    print(*(f"{name}: {value}" for name, value in found.items()), sep="\n")
    lost = found["images_lost_or_doubled"] or found["images"] != found["images_expected"]
    return int(bool(lost or found["other_samples_the_second_time"] or found["unexpected_ends"]))


if __name__ == "__main__":
    sys.exit(main())
