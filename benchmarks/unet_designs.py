"""Designs of an energy U-Net beside plain U-Nets, quality against cost.

    python -m benchmarks.unet_designs --root path/to/fashion-mnist [--seeds 0 1 2] [--out FOLDER]

Trains every design with every seed through ``energydiff fit`` on the same images and noise (what is
trained already is kept), then prints held-out loss beside operations and processor time of a
training step and of a call, in units of the first plain U-Net, measured in turn within one run.
"""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import nn

from benchmarks.cost import without_zeros
from benchmarks.sweep import SHAPE, SIGMA_DATA, sweep
from energydiff.denoisers import build_denoiser
from energydiff.energies import Denoiser
from energydiff.potentials import EnergyUNet, UNet

MODULE = "benchmarks.unet_designs"
IMAGES = 20_000
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
            for block in level.each()[:-1]:
                _fix_at_zero(block.readout, "memory")
                _fix_at_zero(block.readout.inner, "weight")


class OneGroup(EnergyUNet):
    """All channels of a map normalised together."""

    def condition(self, width: int, sizes: Sequence[int]) -> None:
        super().condition(width, sizes)
        self.start.groups = 1
        for block in self.blocks():
            block.inner.groups = block.norm.groups = 1


class Deaf(EnergyUNet):
    """Levels that do not hear one another: the energy of each is added up."""

    def condition(self, width: int, sizes: Sequence[int]) -> None:
        super().condition(width, sizes)
        for level in self.levels:
            if level.hear is not None:
                _fix_at_zero(level.hear, "weight")


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
    Design("energy, 2 blocks, levels apart", Deaf, {"blocks": 2}),
]


def main() -> None:
    """Train what is missing, measure all, print the table."""
    designs = {design.name: (_arguments(design), partial(_built, design)) for design in DESIGNS}
    sweep(__doc__, Path("runs/unet_designs"), designs, lambda rows: None, table)


def _arguments(design: Design) -> list[str]:
    # Of a class of this file, run as a program: the training imports it by its own name.
    module = design.network.__module__.replace("__main__", MODULE)
    backbone = {
        "class_path": f"{module}.{design.network.__name__}",
        "init_args": COMMON | design.arguments,
    }
    return [
        *("--config", "configs/fashion_mnist/baseline_unet.yaml"),
        *("--import", MODULE, "--val_every_images", "0", "--model.total_images", str(IMAGES)),
        *("--model.parametrization", design.parametrization),
        *("--model.backbone", json.dumps(backbone)),
    ]


def _built(design: Design) -> Denoiser:
    """The design at random weights that leave no layer at zero."""
    torch.manual_seed(0)
    network = design.network(SHAPE, **COMMON | design.arguments)
    return without_zeros(build_denoiser(network, SIGMA_DATA, design.parametrization))


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
