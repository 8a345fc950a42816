"""Designs of an energy U-Net beside plain U-Nets, quality against cost.

    python -m benchmarks.unet_designs --root path/to/fashion-mnist [--seeds 0 1 2] [--out FOLDER]

Trains every design with every seed through ``energydiff fit`` on the same images and noise (what is
trained already is kept), then prints held-out loss beside operations and processor time of a
training step and of a call, in units of the first plain U-Net, measured in turn within one run.
"""

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.cost import denoiser_call, training_step, without_zeros
from benchmarks.runs import run_folder, train_missing
from energydiff.data import Idx
from energydiff.denoisers import build_denoiser
from energydiff.energies import Denoiser
from energydiff.errors import sentences
from energydiff.evaluation.cost import Work, operations, timings
from energydiff.files import write_json
from energydiff.landscape import held_out_losses
from energydiff.potentials import EnergyUNet, UNet
from energydiff.saving import open_model

CONFIG = Path("configs/fashion_mnist/baseline_unet.yaml")
HELD_OUT_IMAGES = 2_000
SIGMAS = torch.logspace(-1.5, 0.9, 9).tolist()
SHAPE, BATCH = (1, 28, 28), 64
COMMON: dict[str, Any] = {
    "channels": 16,
    "multipliers": [1, 2, 2],
    "attention_resolutions": [7],
}


class InnerProductAlone(EnergyUNet):
    """Without the memory term."""

    def condition(self, width: int, sizes: Sequence[int]) -> None:
        super().condition(width, sizes)
        for block in self.blocks():
            _fix_at_zero(block.readout, "memory")


class MemoryAlone(EnergyUNet):
    """Without the inner product."""

    def condition(self, width: int, sizes: Sequence[int]) -> None:
        super().condition(width, sizes)
        for block in self.blocks():
            _fix_at_zero(block.readout.inner, "weight")


class ReadOncePerLevel(EnergyUNet):
    """The last block of a level is read out, and no other."""

    def condition(self, width: int, sizes: Sequence[int]) -> None:
        super().condition(width, sizes)
        for level in self.levels:
            *others, _ = level.children()
            for block in others:
                _fix_at_zero(block.readout, "memory")
                _fix_at_zero(block.readout.inner, "weight")


class OneGroup(EnergyUNet):
    """All channels of a map normalised together."""

    def condition(self, width: int, sizes: Sequence[int]) -> None:
        super().condition(width, sizes)
        self.start.groups = 1
        for block in self.blocks():
            block.groups = block.norm.groups = 1


def _fix_at_zero(module: nn.Module, name: str) -> None:
    zero = torch.zeros_like(getattr(module, name))
    delattr(module, name)
    module.register_buffer(name, zero)


@dataclass(frozen=True)
class Design:
    """A network: a plain U-Net, or an energy of the class named."""

    name: str
    network: type[UNet] | type[EnergyUNet]
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def parametrization(self) -> str:
        return "unconstrained" if self.network is UNet else "scalar"


DESIGNS = [
    Design("plain, 16 channels", UNet, {"blocks": 1}),
    Design("plain, 12 channels", UNet, {"blocks": 1, "channels": 12}),
    Design("plain, 20 channels", UNet, {"blocks": 1, "channels": 20, "head_width": 20}),
    Design("plain, 16 channels, 2 blocks", UNet, {"blocks": 2}),
    Design("energy, 2 blocks", EnergyUNet, {"blocks": 2}),
    Design("energy, 1 block", EnergyUNet, {"blocks": 1}),
    Design("energy, 3 blocks", EnergyUNet, {"blocks": 3}),
    Design("energy, 2 blocks, inner product alone", InnerProductAlone, {"blocks": 2}),
    Design("energy, 2 blocks, memory alone", MemoryAlone, {"blocks": 2}),
    Design("energy, 2 blocks, read once per level", ReadOncePerLevel, {"blocks": 2}),
    Design("energy, 2 blocks, norm of one group", OneGroup, {"blocks": 2}),
]


def main() -> None:
    """Train what is missing, measure all, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of the IDX files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/unet_designs"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    with sentences():
        torch.set_num_threads(1)
        train_all(options)
        rows = measure(options)
        write_json(options.out / "summary.json", rows)
        Console().print(table(rows, len(options.seeds)))


def train_all(options: argparse.Namespace) -> None:
    """Train every design with every seed, by the denoising loss."""
    runs = {}
    for seed in options.seeds:
        for design in DESIGNS:
            backbone = {
                "class_path": f"{design.network.__module__}.{design.network.__name__}",
                "init_args": COMMON | design.arguments,
            }
            runs[run_folder(options.out, design.name, seed)] = [
                *("--config", str(CONFIG), "--data.source.root", str(options.root)),
                *("--import", "benchmarks.unet_designs", "--monitor.every_images", "0"),
                *("--val_every_images", "0"),
                *("--seed_everything", str(seed), "--finish.evaluations", "0"),
                *("--model.parametrization", design.parametrization),
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
    (steps, step_operations), (calls, call_operations) = (_costs(t) for t in (True, False))
    return [
        {
            "design": design.name,
            "parameters": sum(p.numel() for p in _built(design).parameters()),
            "step": step,
            "call": call,
            "step_operations": step_operations[i],
            "call_operations": call_operations[i],
            "losses": loss,
        }
        for i, (design, step, call, loss) in enumerate(
            zip(DESIGNS, steps, calls, losses, strict=True)
        )
    ]


def _built(design: Design) -> Denoiser:
    """The design at random weights that leave no layer at zero."""
    torch.manual_seed(0)
    model = build_denoiser(
        design.network(SHAPE, **COMMON | design.arguments), 0.7, design.parametrization
    )
    return without_zeros(model)


def _costs(trains: bool, rounds: int = 15) -> tuple[list[float], list[float]]:
    """Processor time, medians over rounds taken in turn, and operations, in units of the first."""
    x = 0.7 * torch.randn(BATCH, *SHAPE)
    work: dict[str, Work] = {}
    for design in DESIGNS:
        model = _built(design).train(trains).requires_grad_(trains)
        work[design.name] = (
            training_step(model, model.denoise, x) if trains else denoiser_call(model.denoise, x)
        )
    counts = [operations(one) for one in work.values()]
    taken = list(timings(work, rounds, "cpu").values())
    times = [timing.over(taken[0]).median for timing in taken]
    return times, [count / counts[0] for count in counts]


def table(rows: list[dict[str, Any]], seeds: int) -> Table:
    """Quality with cost beside it."""
    result = Table(title=f"held-out loss, mean of {seeds} seeds (each); cost in plain U-Nets")
    for column in ("design", "parameters", "step", "operations", "call", "held-out loss"):
        result.add_column(column)
    for row in rows:
        each = " ".join(f"{loss:.4f}" for loss in row["losses"])
        result.add_row(
            row["design"],
            f"{row['parameters']:,}",
            f"{row['step']:.2f}",
            f"{row['step_operations']:.2f}",
            f"{row['call']:.2f}",
            f"{statistics.mean(row['losses']):.4f} ({each})",
        )
    return result


if __name__ == "__main__":
    main()
