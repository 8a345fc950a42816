"""Retrieval from five corruptions: by a memory of stored digits, and by a trained energy.

    python -m benchmarks.retrieval [--model DIR] [--count N] [--sigma_min S] [--steps N] [--out DIR]

The log-sum-exp memory stores some of scikit-learn's digits, made black and white (±1), and
gets those back corrupted. The trained energy gets digits that its training never saw. Prints errors
beside those of the corrupted images and of the mean image, and draws ``memory.png`` and
``energy.png``.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import energydiff
from energydiff.data import Digits
from energydiff.energies import Energy
from energydiff.errors import UserError, sentences
from energydiff.memory import (
    BitFlips,
    Blur,
    Corrupted,
    Corruption,
    GaussianNoise,
    LogSumExpMemory,
    Masking,
    Occlusion,
    Retrieval,
    retrieve,
)
from energydiff.report import retrieval_rows
from energydiff.sampling import geometric_sigmas

BITS = {
    "Gaussian noise, std 1": GaussianNoise(1.0),
    "half of the pixels masked": Masking(0.5),
    "lower half occluded": Occlusion(4, 8, at=(4, 0)),
    "15 % of the bits flipped": BitFlips(0.15),
    "blur, radius 1 pixel": Blur(1.0),
}
# With the noise at which descent begins: about the RMS of what the corruption changed.
IMAGES: dict[str, tuple[Corruption, float]] = {
    "Gaussian noise, std 0.5": (GaussianNoise(0.5), 0.5),
    "half of the pixels masked": (Masking(0.5), 1.0),
    "lower half occluded": (Occlusion(4, 8, at=(4, 0)), 1.0),
    "4 by 4 block occluded": (Occlusion(4, 4), 1.0),
    "blur, radius 1 pixel": (Blur(1.0), 0.4),
}
LEVELS, TOLERANCE = 20, 1e-3
SHOWN = 12


@dataclass(frozen=True)
class Row:
    """One corruption: mean squared errors over what is not known, in squared model units."""

    corruption: str
    corrupted: float
    mean_image: float
    retrieved: float
    recalled: float
    at_rest: float
    rises: int
    steps: int


def main(arguments: list[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retrieval", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("pretrained/digits_energy_unet"))
    parser.add_argument("--count", type=int, default=48, help="digits of each kind")
    parser.add_argument("--sigma_min", type=float, default=0.05, help="lowest noise of the energy")
    parser.add_argument("--steps", type=int, default=30, help="most steps there")
    parser.add_argument("--out", type=Path, default=Path("runs/retrieval"))
    options = parser.parse_args(arguments)
    with sentences():
        if options.count < 1:
            raise UserError(f"--count must be at least 1, got {options.count}.")
        energy = energydiff.load(options.model).require_energy()
        return from_memory(options.count, options.out) + from_energy(
            energy, options.count, options.sigma_min, options.steps, options.out
        )


def from_memory(count: int, out: Path) -> list[Row]:
    """Stored digits of ±1, back from each corruption."""
    train = Digits().open().train
    stored = torch.where(train.clean()[:count] < 0, -1.0, 1.0)
    memory = LogSumExpMemory(beta=4.0).store(stored)
    rows, pictures = [], {}
    for name, corruption in BITS.items():
        bad = corruption(stored)
        result = memory.retrieve(bad.x, bad.known)
        rows.append(row(name, stored, bad, result, stored.mean(0)))
        pictures[name] = (bad.x[:SHOWN], result.samples[:SHOWN])
    Console().print(table(rows, f"Log-sum-exp memory of {count} digits of -1 and 1"))
    retrieval_rows(stored[:SHOWN], pictures, train.normalization, out / "memory.png")
    return rows


def from_energy(energy: Energy, count: int, sigma_min: float, steps: int, out: Path) -> list[Row]:
    """Digits that training never saw, by descent on the trained energy."""
    data = Digits().open()
    mean = data.train.clean().mean(0)
    original = data.held_out.clean()[:count]
    rows, pictures = [], {}
    for name, (corruption, start) in IMAGES.items():
        bad = corruption(original)
        sigmas = geometric_sigmas(LEVELS, sigma_min, start)
        result = retrieve(energy, bad.x, bad.known, sigmas=sigmas, steps=steps, tolerance=TOLERANCE)
        rows.append(row(name, original, bad, result, mean))
        pictures[name] = (bad.x[:SHOWN], result.samples[:SHOWN])
    Console().print(table(rows, f"Trained energy, {count} held-out digits"))
    retrieval_rows(original[:SHOWN], pictures, data.train.normalization, out / "energy.png")
    return rows


def row(name: str, original: Tensor, bad: Corrupted, result: Retrieval, mean: Tensor) -> Row:
    unknown = torch.ones_like(original, dtype=torch.bool) if bad.known is None else ~bad.known

    def error(x: Tensor) -> float:
        return float((x - original)[unknown].square().mean())

    back = (result.samples - original).flatten(1).abs().amax(1) < 0.01
    return Row(
        name,
        error(bad.x),
        error(mean.expand_as(original)),
        error(result.samples),
        float(back.float().mean()),
        float(result.at_rest.float().mean()),
        result.certificate.rises,
        result.certificate.steps,
    )


def table(rows: list[Row], title: str) -> Table:
    view = Table(title=title)
    view.caption = "mean squared errors of the pixels that are not known; exact: to 0.01 in each"
    for heading in ("", "corrupted", "mean image", "retrieved", "exact", "at rest", "V rose"):
        view.add_column(heading, justify="right" if heading else "left")
    for r in rows:
        view.add_row(
            r.corruption,
            *(f"{value:.3f}" for value in (r.corrupted, r.mean_image, r.retrieved)),
            f"{r.recalled:.0%}",
            f"{r.at_rest:.0%}",
            f"{r.rises} of {r.steps:,}",
        )
    return view


if __name__ == "__main__":
    main()
