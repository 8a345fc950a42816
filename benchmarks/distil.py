"""Energies from baselines that one has, beside energies from data alone at equal cost.

    python -m benchmarks.distil [--seeds 0 1 2] [--fashion path/to/fashion-mnist] [-n 1000]

Trains the baseline of digits with every seed, and from each an energy on the same network, by
``energydiff distil``, in 15 % of its images: from its weights on the exact mean of the data, from
its weights on what it says and then on the data, and from no weights on the exact mean. Of the
first seed also from its weights on the data. With --fashion the same once on Fashion-MNIST. What is
trained already is kept. Prints held-out loss and distances.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from energydiff.data import Idx
from energydiff.drawing import draw_samples
from energydiff.errors import sentences
from energydiff.evaluation import EvaluationData, Measurement, OpenedModel, Settings
from energydiff.evaluation.intervals import t_interval
from energydiff.files import write_json
from energydiff.likelihood import held_out_losses
from energydiff.memorisation.trainings import train_missing
from energydiff.sampling import certify

SIGMAS = torch.logspace(-1.5, 0.9, 9).tolist()
HELD_OUT_IMAGES = 2_000
CERTIFIED = 64  # trajectories
ENERGY = (
    *("--model.parametrization", "inner_product"),
    *("--model.objective", "energydiff.diffusion.DualScoreMatching"),
)
STABLE = ("--model.stable_targets", "true")
WEIGHTS = ("--model.teacher_share", "0")
QUIET = ("--monitor.every_images", "0", "--val_every_images", "0")


@dataclass(frozen=True)
class Task:
    """A data set, its baseline, and in how many images an energy is made of that.

    Attributes:
        images: of the baseline. ``distilled`` of the energy.
        few: of energies: many small steps at a high rate, for a training that is short.
        options: of all trainings.
    """

    name: str
    config: str
    data: EvaluationData
    images: int
    distilled: int
    few: Sequence[str]
    options: Sequence[str] = ()

    def arguments(self, seed: int, images: int) -> list[str]:
        """Of fit, whatever is trained."""
        config = ["--config", f"configs/{self.config}.yaml", *self.options, *QUIET]
        return [*config, "--seed_everything", str(seed), "--model.total_images", str(images)]


def main() -> None:
    """Train what is missing, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--fashion", type=Path, help="folder of Fashion-MNIST's IDX files")
    parser.add_argument("-n", "--num_samples", type=int, default=1_000)
    parser.add_argument("--out", type=Path, default=Path("runs/distil"))
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with sentences():
        for task in tasks(options.fashion):
            seeds = options.seeds if task.name == "digits" else options.seeds[:1]
            runs = train(task, seeds, options.out, options.jobs)
            settings = Settings(options.num_samples, store=options.out / "evaluation")
            rows = measure(runs, Measurement.open(task.data, settings))
            write_json(options.out / f"{task.name}.json", rows)
            Console(width=140).print(table(task, rows))


def tasks(fashion: Path | None) -> list[Task]:
    """On digits and, where its files are given, on Fashion-MNIST."""
    few = ("--data.batch_size", "32", "--model.learning_rate", "5e-3")
    digits = EvaluationData(small_reference=True)
    found = [Task("digits", "digits/baseline_unet", digits, 320_000, 48_000, few)]
    if fashion:
        few = ("--data.batch_size", "16", "--model.learning_rate", "3e-3")
        data = EvaluationData(Idx(fashion, labels=True))
        root = ("--data.source.root", str(fashion))
        config = "fashion_mnist/baseline_unet"
        found.append(Task("fashion", config, data, 200_000, 30_016, few, root))
    return found


def train(
    task: Task, seeds: Sequence[int], out: Path, jobs: int
) -> dict[str, tuple[int, list[Path]]]:
    """What is missing; of each arm the images of a run and its runs, by seed."""

    def runs(arm: str, images: int, seeds: Sequence[int] = seeds) -> dict[int, Path]:
        name = arm.replace(" ", "_")
        arms[arm] = images, [out / task.name / f"{name}_{images}_{seed}" for seed in seeds]
        return dict(zip(seeds, arms[arm][1], strict=True))

    def few(seed: int, *more: str) -> list[str]:
        return [*task.arguments(seed, task.distilled), *ENERGY, *task.few, *more]

    arms: dict[str, tuple[int, list[Path]]] = {}
    teachers = runs("baseline", task.images)
    train_missing({run: task.arguments(s, task.images) for s, run in teachers.items()}, jobs)
    for arm, taught, more in (
        ("distilled", seeds, (*WEIGHTS, *STABLE)),
        ("teacher first", seeds, ()),
        ("weights and draws", seeds[:1], WEIGHTS),
    ):
        missing = runs(arm, task.distilled, taught)
        given = {run: [str(teachers[s]), *few(s, *more)] for s, run in missing.items()}
        train_missing(given, jobs, "distil")
    alone = runs("data alone", task.distilled)
    train_missing({run: few(s, *STABLE) for s, run in alone.items()}, jobs)
    return arms


def measure(
    runs: Mapping[str, tuple[int, list[Path]]], measurement: Measurement
) -> list[dict[str, Any]]:
    """A row per arm: loss and distance of each seed, and the distance less that of the teacher."""
    held_out = measurement.splits.held_out.spread(HELD_OUT_IMAGES)
    rows: list[dict[str, Any]] = []
    for arm, (images, folders) in runs.items():
        row: dict[str, Any] = {"arm": arm, "images": images, "losses": [], "blocks": []}
        row |= {"distances": [], "steps": 0, "rises": 0}
        for run in folders:
            opened = OpenedModel.at(run / "export")
            model, settings = opened.saved, measurement.settings
            sigma_data = float(model.denoiser.sigma_data)  # type: ignore[arg-type]
            losses = held_out_losses(model.denoiser, held_out, SIGMAS, sigma_data)
            result = measurement.measure(opened)
            row["losses"].append(float(losses.mean()))
            row["distances"].append(result.quality.frechet)
            row["blocks"].append(result.block_frechet)
            model.denoiser.cpu()
            sampler = settings.sampler_of(model)
            drawn = draw_samples(model.denoiser, sampler, range(CERTIFIED), settings.drawing)
            if drawn.trace is not None:
                found = certify(drawn.trace)
                row["steps"] += found.steps
                row["rises"] += found.rises
        rows.append(row)
    baseline = torch.tensor(rows[0]["blocks"])
    for row in rows[1:]:
        difference = torch.tensor(row["blocks"]) - baseline[: len(row["blocks"])]
        row["against_teacher"] = vars(
            t_interval(difference.mean(1) if len(difference) > 1 else difference[0])
        )
    return rows


def table(task: Task, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Quality beside the images that it took."""
    result = Table(title=f"{task.name}: each seed; differences over seeds, of one over its blocks")
    columns = ("energy", "images", "held-out loss", "distance", "− teacher", "V rose")
    for column in columns:
        result.add_column(column)
    for row in rows:
        less = row.get("against_teacher")
        result.add_row(
            row["arm"],
            f"{row['images']:,}",
            " ".join(f"{loss:.4f}" for loss in row["losses"]),
            " ".join(f"{distance:.2f}" for distance in row["distances"]),
            f"{less['mean']:.2f} [{less['low']:.2f}, {less['high']:.2f}]" if less else "",
            f"{row['rises']} of {row['steps']:,}" if row["steps"] else "no energy",
        )
    return result


if __name__ == "__main__":
    main()
