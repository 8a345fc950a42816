"""What the Lyapunov monitor costs: one look at the model over the training steps between two.

    python -m benchmarks.monitor [--fashion PATH] [--config FILE ...] [--quick] [--json FILE]

A training step is the next batch of the stream, loss, backward, clipping and AdamW; averaging the
weights and Lightning's own work are left out, so a true share is lower. A look is one ``observe``
with the monitor's arguments in the config. Both on the CPU, interleaved.
"""

import argparse
import copy
import inspect
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table

from energydiff.cli.training import EnergyDiffCLI
from energydiff.errors import sentences
from energydiff.evaluation.cost import Work, timings
from energydiff.files import write_json
from energydiff.training import LyapunovMonitor, monitor
from energydiff.training.module import DiffusionModule
from energydiff.training.stream import with_training_draws

CONFIGS = [f"configs/digits/energy_{name}.yaml" for name in ("mlp", "inner_product", "transformer")]
FASHION = "configs/fashion_mnist/energy_transformer.yaml"
DEFAULT_IMAGES = inspect.signature(LyapunovMonitor).parameters["every_images"].default
TARGET = 0.03
PARTS: dict[str, tuple[Any, str]] = {
    "calibration": (monitor, "calibrate_gauge"),
    "probes": (LyapunovMonitor, "_probe_energy"),
    "curvature": (monitor, "curvature"),
    "heat residual": (monitor, "heat_residual"),
    "sampling": (monitor.Euler, "__call__"),
}
QUICK = {
    "samples": 2,
    "steps": 2,
    "probe_images": 4,
    "curvature_states": 1,
    "calibration_evaluations": 64,
}


@dataclass(frozen=True)
class Row:
    """One config: seconds of a step and a look, shares of training time, parts of a look.

    ``share`` is at the default interval, ``low`` and ``high`` its quartiles over the rounds;
    ``config_share`` at the config's own, ``every_images``.
    """

    config: str
    step: float
    look: float
    share: float
    low: float
    high: float
    every_images: int
    config_share: float
    parts: dict[str, float]


def measure(config: str, options: list[str], steps: int, rounds: int) -> Row:
    """Time blocks of ``steps`` training steps against looks of the config's monitor."""
    with tempfile.TemporaryDirectory() as folder:
        cli = EnergyDiffCLI(
            "fit",
            [
                *("--config", config, *options),
                *("--trainer.default_root_dir", folder, "--trainer.accelerator", "cpu"),
                *("--trainer.logger", "false", "--trainer.enable_progress_bar", "false"),
                *("--trainer.enable_checkpointing", "false"),
            ],
        )
        trainer, module, data = cli.trainer, cli.model, cli.datamodule
        trainer.datamodule, data.trainer = data, trainer
        watch = next(c for c in trainer.callbacks if isinstance(c, LyapunovMonitor))
        averaged = copy.deepcopy(module).requires_grad_(False)
        looks = 0
        seconds: Counter[str] = Counter()

        def look() -> None:
            nonlocal looks
            looks += 1
            watch.observe(trainer, averaged)

        training = _training(module, iter(data.train_dataloader()), steps)
        with _parts_timed(seconds):
            times = timings({"steps": training, "look": look}, rounds, "cpu")
    taken = times["look"]
    ratio = taken.over(times["steps"])
    # Of blocks of steps per look to the share of the steps between two looks.
    default = steps * module.batch_size / DEFAULT_IMAGES
    inside = ("calibration", "curvature", "heat residual")
    seconds["probes"] -= sum(seconds[name] for name in inside)
    return Row(
        config,
        times["steps"].seconds / steps,
        taken.seconds,
        default * ratio.median,
        default * ratio.low,
        default * ratio.high,
        watch.every_images,
        default * ratio.median * DEFAULT_IMAGES / watch.every_images,
        {name: seconds[name] / looks for name in PARTS},
    )


def _training(module: DiffusionModule, batches: Iterator[dict[str, torch.Tensor]], n: int) -> Work:
    (optimizer,), _ = module.configure_optimizers()

    def work() -> None:
        for _ in range(n):
            batch = with_training_draws(next(batches), seed=0, flip=False)
            loss = torch.stack(list(module.loss_parts(batch).values())).sum(0).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()

    return work


@contextmanager
def _parts_timed(seconds: Counter[str]) -> Iterator[None]:
    """Adds up what the functions of ``PARTS`` take."""

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def work(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            result = function(*args, **kwargs)
            seconds[name] += time.process_time() - start
            return result

        return work

    with ExitStack() as scope:
        for name, (owner, attribute) in PARTS.items():
            wrapped = timed(name, getattr(owner, attribute))
            scope.enter_context(mock.patch.object(owner, attribute, wrapped))
        yield


def table(rows: list[Row]) -> Table:
    result = Table(title=f"The monitor, every {DEFAULT_IMAGES:,} images: at most {TARGET:.0%}")
    for column in ("config", "step", "look", *PARTS, "share (quartiles)", "at the config's"):
        result.add_column(column, justify="left" if column == "config" else "right")
    for row in rows:
        result.add_row(
            "/".join(Path(row.config).with_suffix("").parts[-2:]),
            f"{1e3 * row.step:.1f} ms",
            f"{row.look:.2f} s",
            *(f"{row.parts[name]:.2f} s" for name in PARTS),
            f"{row.share:.2%} ({row.low:.2%} {row.high:.2%})",
            f"{row.config_share:.1%} ({row.every_images:,})",
        )
    return result


def main(arguments: list[str] | None = None) -> list[Row]:
    """Measure, print, and write the numbers if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.monitor", description=__doc__)
    parser.add_argument("--config", nargs="+", default=CONFIGS, metavar="FILE")
    parser.add_argument("--fashion", metavar="PATH", help="Fashion-MNIST's files: its config too")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved repetitions")
    parser.add_argument("--steps", type=int, default=10, help="training steps in a round")
    parser.add_argument("--quick", action="store_true", help="a tiny monitor: try the command")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    options = [f"--monitor.{k}={v}" for k, v in QUICK.items()] if args.quick else []
    runs = [(config, options) for config in args.config]
    if args.fashion:
        runs.append((FASHION, [*options, "--data.source.root", args.fashion]))
    rows = [measure(config, more, args.steps, args.rounds) for config, more in runs]
    Console(width=160).print(table(rows))
    if args.json:
        write_json(args.json, [asdict(row) for row in rows])
    return rows


if __name__ == "__main__":
    with sentences():
        main()
