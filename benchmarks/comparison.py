"""Energies against their unconstrained baselines, U-Net and transformer, several training seeds.

    python -m benchmarks.comparison [--seeds 0 1 2] [--fashion path/to/fashion-mnist] [-n 2000]

Trains every configuration with every seed on the same images and noise; what is trained already is
kept. Then compares each energy with the baseline of its backbone as ``energydiff evaluate
compare`` does, with the interval taken over training seeds, and prints the tables.
"""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from energydiff.data import Idx
from energydiff.errors import sentences
from energydiff.evaluation import EvaluationData, Measurement, OpenedModel, Settings, compare
from energydiff.files import write_json
from energydiff.memorisation.trainings import train_missing
from energydiff.report.tables import comparison_table

CURVE = (6, 12, 18, 40)


@dataclass(frozen=True)
class Pair:
    """An energy and its baseline on one data set, by their configurations."""

    energy: str
    baseline: str
    data: EvaluationData
    root: Path | None = None

    @property
    def configs(self) -> tuple[str, str]:
        """Of A and of B."""
        return self.energy, self.baseline


def main() -> None:
    """Train what is missing, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--fashion", type=Path, help="folder of Fashion-MNIST's IDX files")
    parser.add_argument("-n", "--num_samples", type=int, default=2_000)
    parser.add_argument("--out", type=Path, default=Path("runs/comparison"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with sentences():
        chosen = pairs(options.fashion)
        train_missing(
            {
                run_folder(options.out, config, seed): [
                    *("--config", f"configs/{config}.yaml"),
                    *(("--data.source.root", str(pair.root)) if pair.root else ()),
                    *("--seed_everything", str(seed)),
                ]
                for seed in options.seeds
                for pair in chosen
                for config in pair.configs
            },
            options.jobs,
        )
        for pair in chosen:
            show(pair, options)


def pairs(fashion: Path | None) -> list[Pair]:
    """On digits and, where its files are given, on Fashion-MNIST."""
    digits = EvaluationData(small_reference=True)
    found = [
        Pair(f"digits/energy_{backbone}", f"digits/baseline_{backbone}", digits)
        for backbone in ("unet", "transformer")
    ]
    if fashion:
        data = EvaluationData(Idx(fashion, labels=True))
        found += [
            Pair(
                f"fashion_mnist/energy_{backbone}",
                f"fashion_mnist/baseline_{backbone}",
                data,
                fashion,
            )
            for backbone in ("unet", "transformer")
        ]
    return found


def show(pair: Pair, options: argparse.Namespace) -> None:
    """Compare one pair, keep the result and print its table."""
    settings = Settings(options.num_samples, store=options.out / "evaluation")
    measurement = Measurement.open(pair.data, settings)
    a, b = (
        [OpenedModel.at(run_folder(options.out, config, seed)) for seed in options.seeds]
        for config in pair.configs
    )
    comparison = compare(measurement, a, b, CURVE)
    write_json(options.out / f"{pair.energy.replace('/', '_')}.json", comparison.as_dict())
    Console(width=110).print(comparison_table(comparison, measurement.extractor.distance_name))


def run_folder(out: Path, config: str, seed: int) -> Path:
    """Where one run lives."""
    return out / f"{config.replace('/', '_')}_{seed}"


if __name__ == "__main__":
    main()
