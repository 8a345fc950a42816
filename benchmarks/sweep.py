"""Designs trained with several seeds on Fashion-MNIST, their held-out loss and what they cost."""

import argparse
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.cost import denoiser_call, training_step
from energydiff.cli.parser import values
from energydiff.data import Idx
from energydiff.energies import Denoiser
from energydiff.errors import sentences
from energydiff.evaluation.cost import Work, operations, timings
from energydiff.files import write_json
from energydiff.likelihood import held_out_losses
from energydiff.memorisation.trainings import train_missing
from energydiff.registry import import_modules
from energydiff.saving import open_model

SHAPE, SIGMA_DATA = (1, 28, 28), 0.7
BATCH, ROUNDS = 64, 15
HELD_OUT_IMAGES = 2_000
SIGMAS = torch.logspace(-1.5, 0.9, 9).tolist()
Rows = list[dict[str, Any]]


def sweep(
    description: str | None,
    out: Path,
    designs: Mapping[str, tuple[Sequence[str], Callable[[], Denoiser]]],
    finish: Callable[[Rows], None],
    table: Callable[[Rows, int], Table],
) -> None:
    """Train what is missing, measure all, write ``summary.json`` and print the table.

    Args:
        out: where runs go unless the command line says otherwise.
        designs: of each name, the arguments of ``energydiff fit`` and the untrained model.
        finish: adds to the rows what only all of them tell.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--root", type=Path, required=True, help="folder of the IDX files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    with sentences():
        torch.set_num_threads(1)
        runs = {
            run_folder(options.out, name, seed): [
                *arguments,
                *("--data.source.root", str(options.root), "--seed_everything", str(seed)),
                *("--monitor.every_images", "0", "--finish.evaluations", "0"),
            ]
            for seed in options.seeds
            for name, (arguments, _) in designs.items()
        }
        train_missing(runs, options.jobs)
        # A network of the study's own file goes by that file's name, not __main__.
        for arguments, _ in designs.values():
            import_modules(values(arguments, "--import"))
        models = {name: build() for name, (_, build) in designs.items()}
        rows: Rows = [
            {
                "design": name,
                "parameters": sum(p.numel() for p in model.parameters()),
                "losses": [
                    _held_out_loss(run_folder(options.out, name, seed), options.root)
                    for seed in options.seeds
                ],
            }
            for name, model in models.items()
        ]
        for quantity, trains in (("step", True), ("call", False)):
            for row, cost in zip(rows, _costs(models, quantity, trains), strict=True):
                row |= cost
        finish(rows)
        write_json(options.out / "summary.json", rows)
        Console().print(table(rows, len(options.seeds)))


def run_folder(out: Path, name: str, seed: int) -> Path:
    """Where the run of a design of this name with one seed lives."""
    words = re.findall(r"\w+", name)
    return out / f"{'_'.join(words)}_{seed}"


def _held_out_loss(run: Path, root: Path) -> float:
    model = open_model(run)
    held_out = Idx(root).open().held_out.select(np.arange(HELD_OUT_IMAGES))
    levels = held_out_losses(model.denoiser, held_out, SIGMAS, model.denoiser.sigma_data)
    return float(levels.mean())


def _costs(models: Mapping[str, Denoiser], quantity: str, trains: bool) -> list[dict[str, float]]:
    """Processor time, medians over rounds taken in turn, and operations, in units of the first."""
    x = SIGMA_DATA * torch.randn(BATCH, *SHAPE)
    work: dict[str, Work] = {}
    for name, model in models.items():
        model.train(trains).requires_grad_(trains)
        work[name] = training_step(model, x) if trains else denoiser_call(model, x)
    counts = [operations(one) for one in work.values()]
    first, *others = timings(work, ROUNDS, "cpu").values()
    times = [timing.over(first).median for timing in (first, *others)]
    return [
        {quantity: time, f"{quantity}_operations": count / counts[0]}
        for time, count in zip(times, counts, strict=True)
    ]
