"""The Energy Transformer beside diffusion transformers without an energy, on digits.

    python -m benchmarks.transformers [--seeds 0 1 2] [--out runs/transformers]

The plain transformer of two blocks has as many parameters, that of four blocks costs a little more
to train; all see the same images and noise and minimise the same denoising loss. What is trained
already is kept. Prints held-out loss, Fréchet distance in digit-classifier features of 1,000
samples, and cost measured in turn.
"""

import argparse
import os
import statistics
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.cost import denoiser_call, training_step
from benchmarks.demo import held_out
from energydiff.drawing import draw_samples
from energydiff.errors import sentences
from energydiff.evaluation import EvaluationData, Measurement, OpenedModel, Settings
from energydiff.evaluation.cost import timings
from energydiff.files import write_json
from energydiff.memorisation.trainings import train_missing
from energydiff.sampling import certify
from energydiff.saving import SavedModel, open_model

SAMPLES = 1_000
CONFIGS = Path("configs/digits")
ARMS: dict[str, list[str]] = {
    "energy transformer": [
        *("--config", str(CONFIGS / "energy_transformer.yaml")),
        *("--model.objective", "energydiff.diffusion.DenoisingScoreMatching"),
    ],
    "plain transformer, 2 blocks": [
        *("--config", str(CONFIGS / "baseline_transformer.yaml")),
        *("--model.backbone.init_args.depth", "2"),
    ],
    "plain transformer, 4 blocks": ["--config", str(CONFIGS / "baseline_transformer.yaml")],
}


def main() -> None:
    """Train what is missing, measure all, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/transformers"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with sentences():
        runs = {
            run_folder(options.out, arm, seed): [*arguments, "--seed_everything", str(seed)]
            for seed in options.seeds
            for arm, arguments in ARMS.items()
        }
        train_missing(runs, options.jobs)
        rows = measure(options.out, options.seeds)
        write_json(options.out / "summary.json", rows)
        Console().print(table(rows))


def run_folder(out: Path, arm: str, seed: int) -> Path:
    """Where one arm's run with one seed lives."""
    return out / f"{arm.replace(',', '').replace(' ', '_')}_{seed}"


def measure(out: Path, seeds: list[int]) -> list[dict[str, Any]]:
    """Quality of every run, and cost of every arm in units of the last."""
    settings = Settings(SAMPLES, batch_size=250, accelerator="cpu", store=out / "evaluation")
    measurement = Measurement.open(EvaluationData(small_reference=True), settings)
    rows = []
    for arm in ARMS:
        models = [OpenedModel.at(run_folder(out, arm, seed)) for seed in seeds]
        rows.append(
            {
                "arm": arm,
                "parameters": sum(p.numel() for p in models[0].saved.denoiser.parameters()),
                "losses": [held_out(model, measurement) for model in models],
                "frechet": [measurement.measure(model).quality.frechet for model in models],
                "rises": [_rises(model.saved, settings) for model in models],
            }
        )
    for trains, name in ((True, "step"), (False, "call")):
        for row, ratio in zip(rows, _costs(out, seeds[0], trains), strict=True):
            row[name] = ratio
    return rows


def _rises(model: SavedModel, settings: Settings) -> int | None:
    """Steps on which V rose, over all samples; ``None`` without an energy."""
    drawn = draw_samples(
        model.denoiser, settings.sampler_of(model), range(SAMPLES), settings.drawing
    )
    return None if drawn.trace is None else certify(drawn.trace).rises


def _costs(out: Path, seed: int, trains: bool, images: int = 64, rounds: int = 25) -> list[float]:
    """Processor time in units of the last arm, medians over rounds taken in turn."""
    x = 0.85 * torch.randn(images, 1, 8, 8)
    work = {}
    for arm in reversed(ARMS):
        model = open_model(run_folder(out, arm, seed)).denoiser.train(trains)
        model.requires_grad_(trains)
        work[arm] = training_step(model, x) if trains else denoiser_call(model, x)
    taken = timings(work, rounds, "cpu")
    last = taken[list(ARMS)[-1]]
    return [taken[arm].over(last).median for arm in ARMS]


def table(rows: list[dict[str, Any]]) -> Table:
    """Means over seeds, with each seed behind."""
    result = Table(title="digits; cost in units of the plain transformer of 4 blocks")
    for column in (
        "",
        "parameters",
        "training step",
        "denoiser call",
        "held-out loss",
        "Fréchet distance",
        "V rose",
    ):
        result.add_column(column)
    for row in rows:
        result.add_row(
            row["arm"],
            f"{row['parameters']:,}",
            f"{row['step']:.2f}",
            f"{row['call']:.2f}",
            _mean_and_each(row["losses"], 4),
            _mean_and_each(row["frechet"], 1),
            "no energy" if row["rises"][0] is None else str(sum(row["rises"])),
        )
    return result


def _mean_and_each(values: list[float], digits: int) -> str:
    each = " ".join(f"{value:.{digits}f}" for value in values)
    return f"{statistics.mean(values):.{digits}f} ({each})"


if __name__ == "__main__":
    main()
