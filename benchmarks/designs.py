"""Designs of a token energy beside plain networks of the same blocks, quality against cost.

    python -m benchmarks.designs --root path/to/fashion-mnist [--seeds 0 1 2] [--out runs/designs]

Trains every design with every seed through ``energydiff fit`` on the same images and noise (what is
trained already is kept), then prints held-out loss beside the processor time of a training
step and of a denoiser call, in units of one plain block, measured in turn within one run.
"""

import json
import statistics
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from benchmarks.cost import without_zeros
from benchmarks.sweep import SHAPE, SIGMA_DATA, Rows, sweep
from energydiff import potentials
from energydiff.denoisers import build_denoiser
from energydiff.energies import Denoiser

COMMON: dict[str, Any] = {"patch_size": 4, "width": 64}
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
    designs = {design.name: (_arguments(design), partial(_built, design)) for design in DESIGNS}
    sweep(__doc__, Path("runs/designs"), designs, _add_against, table)


def _arguments(design: Design) -> list[str]:
    backbone = {
        "class_path": f"energydiff.potentials.{design.network}",
        "init_args": COMMON | design.arguments,
    }
    return [
        *("--config", "configs/fashion_mnist/energy_transformer.yaml"),
        *("--model.parametrization", design.parametrization),
        *("--model.objective", "energydiff.diffusion.DenoisingScoreMatching"),
        *("--model.backbone", json.dumps(backbone)),
    ]


def _built(design: Design) -> Denoiser:
    """The design at random weights that leave no layer at zero."""
    torch.manual_seed(0)
    network = getattr(potentials, design.network)(SHAPE, **COMMON | design.arguments)
    return without_zeros(build_denoiser(network, SIGMA_DATA, design.parametrization))  # type: ignore[arg-type]


def _add_against(rows: Rows) -> None:
    for design, row in zip(DESIGNS, rows, strict=True):
        for name, convolutional in (("attention", False), ("convolution", True)):
            row[f"against_plain_{name}"] = _against(row, design, rows, convolutional)


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
