"""Designs of a token energy beside plain networks of the same blocks, quality against cost.

    python -m benchmarks.designs --root path/to/fashion-mnist [--seeds 0 1 2] [--out runs/designs]

Trains every design with every seed through ``energydiff fit`` on the same images and noise (what is
trained already is kept), then prints held-out loss beside the processor time of a training
step and of a denoiser call, in units of one plain block, measured in turn within one run.
"""

import argparse
import json
import os
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.cost import denoiser_call, training_step, without_zeros
from benchmarks.runs import run_folder, train_missing
from energydiff import potentials
from energydiff.data import Idx
from energydiff.denoisers import build_denoiser
from energydiff.energies import Denoiser
from energydiff.errors import sentences
from energydiff.evaluation.cost import timings
from energydiff.files import write_json
from energydiff.landscape import held_out_losses
from energydiff.saving import open_model

CONFIG = Path("configs/fashion_mnist/energy_transformer.yaml")
HELD_OUT_IMAGES = 2_000
SIGMAS = torch.logspace(-1.5, 0.9, 9).tolist()
C, F, A = "convolution", "feedforward", "attention"


@dataclass(frozen=True)
class Design:
    """A network on tokens: a for attention, c for convolution and f for feed-forward blocks; A, M
    and J for the attention, memory and inner-product terms of an energy."""

    name: str
    network: str
    parametrization: str
    arguments: dict[str, Any]

    @property
    def plain(self) -> bool:
        return self.parametrization == "unconstrained"

    @property
    def convolutional(self) -> bool:
        return C in self.arguments.get("trunk", ())


def _plain(name: str, *trunk: str) -> Design:
    return Design(name, "TokenNetwork", "unconstrained", {"trunk": list(trunk)})


def _energy(name: str, trunk: list[str], readout: list[str]) -> Design:
    return Design(name, "EnergyTransformer", "scalar", {"trunk": trunk, "readout": readout})


DESIGNS = [
    _plain("plain 1 × (a f)", A, F),
    _plain("plain 2 × (a f)", *[A, F] * 2),
    _plain("plain 4 × (a f)", *[A, F] * 4),
    _plain("plain 2 × (c f)", *[C, F] * 2),
    _plain("plain 4 × (c f)", *[C, F] * 4),
    Design("published block", "PublishedEnergyTransformer", "scalar", {"depth": 1}),
    Design("sum of 4 published blocks", "PublishedEnergyTransformer", "scalar", {"depth": 4}),
    _energy("a f a f + J", [A, F] * 2, ["inner_product"]),
    _energy("c f + A M J", [C, F], ["attention", "memory", "inner_product"]),
    _energy("c f c f + J", [C, F] * 2, ["inner_product"]),
    _energy("c f c f + A M J", [C, F] * 2, ["attention", "memory", "inner_product"]),
]


def main() -> None:
    """Train what is missing, measure all, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of the IDX files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/designs"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    with sentences():
        torch.set_num_threads(1)
        train_all(options)
        rows = measure(options)
        write_json(options.out / "summary.json", rows)
        Console().print(table(rows, len(options.seeds)))


def train_all(options: argparse.Namespace) -> None:
    """Train every design with every seed."""
    runs = {}
    for seed in options.seeds:
        for design in DESIGNS:
            backbone = {
                "class_path": f"energydiff.potentials.{design.network}",
                "init_args": {"patch_size": 4, "width": 64} | design.arguments,
            }
            runs[run_folder(options.out, design.name, seed)] = [
                *("--config", str(CONFIG), "--data.source.root", str(options.root)),
                *("--seed_everything", str(seed), "--finish.evaluations", "0"),
                *("--model.parametrization", design.parametrization),
                *("--model.objective", "energydiff.diffusion.DenoisingScoreMatching"),
                *("--model.backbone", json.dumps(backbone)),
            ]
    train_missing(runs, options.jobs)


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Loss over seeds and cost of every design."""
    held_out = Idx(options.root).open().held_out.select(np.arange(HELD_OUT_IMAGES))
    losses: list[list[float]] = []
    for design in DESIGNS:
        losses.append([])
        for seed in options.seeds:
            model = open_model(run_folder(options.out, design.name, seed))
            levels = held_out_losses(model.denoiser, held_out, SIGMAS, model.denoiser.sigma_data)
            losses[-1].append(float(levels.mean()))
    steps, calls = (_costs(trains) for trains in (True, False))
    rows = [
        {
            "design": design.name,
            "parameters": sum(p.numel() for p in _built(design).parameters()),
            "step": step,
            "call": call,
            "losses": loss,
        }
        for design, step, call, loss in zip(DESIGNS, steps, calls, losses, strict=True)
    ]
    for design, row in zip(DESIGNS, rows, strict=True):
        for name, convolutional in (("attention", False), ("convolution", True)):
            row[f"against_plain_{name}"] = _against(row, design, rows, convolutional)
    return rows


def _built(design: Design) -> Denoiser:
    """The design at random weights that leave no layer at zero."""
    torch.manual_seed(0)
    network = getattr(potentials, design.network)(
        (1, 28, 28), patch_size=4, width=64, **design.arguments
    )
    model = build_denoiser(network, 0.7, design.parametrization)  # type: ignore[arg-type]
    return without_zeros(model)


def _costs(trains: bool, images: int = 64, rounds: int = 15) -> list[float]:
    """Processor time in units of the first design, medians over rounds taken in turn."""
    x = 0.7 * torch.randn(images, 1, 28, 28)
    work = {}
    for design in DESIGNS:
        model = _built(design).train(trains).requires_grad_(trains)
        work[design.name] = (training_step if trains else denoiser_call)(
            *((model, model.denoise, x) if trains else (model.denoise, x))
        )
    taken = list(timings(work, rounds, "cpu").values())
    return [timing.over(taken[0]).median for timing in taken]


def _against(
    row: dict[str, Any], design: Design, rows: list[dict[str, Any]], convolutional: bool
) -> float | None:
    """Loss relative to plain networks of the same training cost: log loss is interpolated linearly
    in log cost between them, and not beyond their ends."""
    if design.plain:
        return None
    plain = sorted(
        (r["step"], statistics.mean(r["losses"]))
        for d, r in zip(DESIGNS, rows, strict=True)
        if d.plain and d.convolutional == convolutional
    )
    cost, loss = np.log(np.array(plain)).T
    here = np.log(row["step"])
    if not cost[0] <= here <= cost[-1]:
        return None
    return statistics.mean(row["losses"]) / float(np.exp(np.interp(here, cost, loss)))


def table(rows: list[dict[str, Any]], seeds: int) -> Table:
    """Quality with cost beside it."""
    result = Table(title=f"held-out loss, mean of {seeds} seeds (spread); cost in plain blocks")
    for column in (
        "design",
        "parameters",
        "training step",
        "denoiser call",
        "held-out loss",
        "against plain of equal cost",
        "… with convolution",
    ):
        result.add_column(column)
    for row in rows:
        losses = row["losses"]
        spread = statistics.stdev(losses) if len(losses) > 1 else float("nan")
        result.add_row(
            row["design"],
            f"{row['parameters']:,}",
            f"{row['step']:.2f}",
            f"{row['call']:.2f}",
            f"{statistics.mean(losses):.4f} ({spread:.4f})",
            *(
                "" if ratio is None else f"{100 * (ratio - 1):+.1f} %"
                for ratio in (row["against_plain_attention"], row["against_plain_convolution"])
            ),
        )
    return result


if __name__ == "__main__":
    main()
