"""Energies from baselines that one has, beside energies from data alone at equal cost.

    python -m benchmarks.distil [--seeds 0 1 2] [--fashion path/to/fashion-mnist] [-n 1000]

Trains the baseline of digits with every seed, and from each an energy on the same network, by
``energydiff distil``, in 15 % of its images; the same energy from data alone in as many operations.
Of the first seed also by the teacher's weights or by its denoiser alone, and the energy U-Net,
distilled in more images. With --fashion the same once on Fashion-MNIST. What is trained already is
kept. Prints held-out loss, distances, and how far an energy is from its teacher where it samples.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from energydiff.data import Idx, Source
from energydiff.denoisers import UnconstrainedDenoiser, build_denoiser
from energydiff.diffusion import NoisyBatch, Teacher, denoising_loss
from energydiff.drawing import draw_samples
from energydiff.energies import Denoiser
from energydiff.errors import sentences
from energydiff.evaluation import EvaluationData, Measurement, OpenedModel, Settings
from energydiff.evaluation.intervals import t_interval
from energydiff.files import write_json
from energydiff.likelihood import held_out_losses
from energydiff.memorisation.trainings import train_missing
from energydiff.sampling import Heun, certify, karras_sigmas
from energydiff.saving import SavedModel, open_model, save_model

SIGMAS = torch.logspace(-1.5, 0.9, 9).tolist()
HELD_OUT_IMAGES = 2_000
CERTIFIED = 64  # trajectories
STATES = 256  # at which an energy is held against its teacher
MIDDLE = 11  # of the 18 steps from σ_max to σ_min: σ = .44 on digits
# A step of ½⟨u, F(u)⟩ is six forward passes of F, and a teacher's answer a seventh.
WITHOUT_TEACHER = 7 / 6
UNET_WITHOUT_TEACHER = 1.38  # of a dual step of the energy U-Net
# Of all energies: many small steps at a high rate, for a training that is short.
ENERGY = (
    *("--model.parametrization", "inner_product"),
    *("--data.batch_size", "32", "--model.learning_rate", "5e-3"),
)
DUAL = ("--model.objective", "energydiff.diffusion.DualScoreMatching")
# Of the energy U-Net. With a teacher the denoising loss falls to a twentieth of that with data:
# the time score gets a tenth of its weight beside it.
ENERGY_UNET = (
    *("--data.batch_size", "32", "--model.learning_rate", "4e-3"),
    *("--model.backbone.multipliers", "[1, 2]", "--model.objective.time_weight", "0.1"),
)
QUIET = ("--monitor.every_images", "0", "--val_every_images", "0")


@dataclass(frozen=True)
class Task:
    """A data set, its baseline, and in how many images an energy is made of that.

    Attributes:
        images: of the baseline. ``distilled`` of the energy.
        options: of all trainings. ``energy`` of those of energies.
        unet: the configuration of an energy U-Net, to distil in each of ``longer`` images.
    """

    name: str
    config: str
    data: EvaluationData
    images: int
    distilled: int
    options: Sequence[str] = ()
    energy: Sequence[str] = ENERGY
    unet: str = ""
    longer: Sequence[int] = ()

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
    digits = EvaluationData(small_reference=True)
    unet, longer = "digits/energy_unet", (24_000, 72_000)
    config, rate = "digits/baseline_unet", ("--model.learning_rate", "2e-3")
    found = [Task("digits", config, digits, 160_000, 24_000, rate, unet=unet, longer=longer)]
    if fashion:
        data = EvaluationData(Idx(fashion, labels=True))
        root = ("--data.source.root", str(fashion))
        config, energy = "fashion_mnist/baseline_unet", (*ENERGY, *DUAL)
        found.append(Task("fashion", config, data, 40_000, 6_016, root, energy))
    return found


def train(
    task: Task, seeds: Sequence[int], out: Path, jobs: int
) -> dict[str, tuple[int, list[Path]]]:
    """What is missing; of each arm the images of a run and its runs, by seed."""
    equal = in_batches(task.distilled * WITHOUT_TEACHER)

    def runs(arm: str, images: int, seeds: Sequence[int] = seeds) -> dict[int, Path]:
        name = arm.replace("'", "").replace(" ", "_")
        arms[arm] = images, [out / task.name / f"{name}_{seed}" for seed in seeds]
        return dict(zip(seeds, arms[arm][1], strict=True))

    def few(seed: int) -> list[str]:
        return [*task.arguments(seed, task.distilled), *task.energy]

    arms: dict[str, tuple[int, list[Path]]] = {}
    teachers = runs("baseline", task.images)
    train_missing({run: task.arguments(s, task.images) for s, run in teachers.items()}, jobs)
    taught = runs("distilled", task.distilled)
    train_missing({run: [str(teachers[s]), *few(s)] for s, run in taught.items()}, jobs, "distil")
    alone = runs("data alone", equal)
    train_missing({r: [*task.arguments(s, equal), *task.energy] for s, r in alone.items()}, jobs)
    seed = seeds[0]
    save_model(with_weights_of(open_model(teachers[seed])), start := out / task.name / "start")
    parts = {"teacher's weights alone": ("--init", start)}
    parts["teacher's denoiser alone"] = "--teacher", teachers[seed]
    for arm, (option, given) in parts.items():
        run = runs(arm, task.distilled, [seed])[seed]
        train_missing({run: [*few(seed), option, str(given)]}, jobs)
    unet = replace(task, config=task.unet)
    for images in task.longer:
        run = runs(f"energy U-Net {images}", images, [seed])[seed]
        arguments = [str(teachers[seed]), *unet.arguments(seed, images), *ENERGY_UNET]
        train_missing({run: arguments}, jobs, "distil")
        equal = in_batches(images * UNET_WITHOUT_TEACHER)
        run = runs(f"energy U-Net data alone {equal}", equal, [seed])[seed]
        train_missing({run: [*unet.arguments(seed, equal), *ENERGY_UNET]}, jobs)
    return arms


def in_batches(images: float) -> int:
    """As many, in whole batches of 32."""
    return round(images / 32) * 32


def with_weights_of(teacher: SavedModel) -> SavedModel:
    """The energy ½⟨u, F(u)⟩ of a baseline's network, untrained."""
    baseline = teacher.denoiser
    assert isinstance(baseline, UnconstrainedDenoiser)
    energy = build_denoiser(baseline.backbone, baseline.sigma_data, noise=baseline.noise)
    return SavedModel(energy, teacher.normalization, teacher.classes)


def measure(
    runs: Mapping[str, tuple[int, list[Path]]], measurement: Measurement
) -> list[dict[str, Any]]:
    """A row per arm: loss and distance of each seed, and the distance less that of the teacher."""
    held_out = measurement.splits.held_out.spread(HELD_OUT_IMAGES)
    teachers = [open_model(run / "export").denoiser for run in runs["baseline"][1]]
    rows: list[dict[str, Any]] = []
    for arm, (images, folders) in runs.items():
        row: dict[str, Any] = {"arm": arm, "images": images, "losses": [], "blocks": []}
        row |= {"distances": [], "steps": 0, "rises": 0, "noised": [], "visited": []}
        for run, teacher in zip(folders, teachers, strict=False):
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
                noised, visited = from_teacher(model.denoiser, teacher, held_out, sigma_data)
                row["noised"].append(noised)
                row["visited"].append(visited)
        rows.append(row)
    baseline = torch.tensor(rows[0]["blocks"])
    for row in rows[1:]:
        difference = torch.tensor(row["blocks"]) - baseline[: len(row["blocks"])]
        row["against_teacher"] = vars(
            t_interval(difference.mean(1) if len(difference) > 1 else difference[0])
        )
    return rows


def from_teacher(
    energy: Denoiser, teacher: Denoiser, held_out: Source, sigma_data: float
) -> tuple[float, float]:
    """EDM-weighted ‖D − D_T‖² / d in the middle of the noise: of noised held-out images, and of
    states on the energy's own way down."""
    states: list[tuple[float, torch.Tensor]] = []
    sampler = Heun(karras_sigmas(18, *energy.require_noise()))
    sampler(
        energy,
        seeds=range(STATES),
        trace=False,
        on_step=lambda _, here: states.append((here.sigma, here.x)),
    )
    sigma, visited = states[MIDDLE]
    x0 = held_out.clean(STATES)
    noised = x0 + sigma * torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))

    def error(x: torch.Tensor) -> float:
        batch = NoisyBatch(x, torch.full((len(x),), sigma), torch.zeros_like(x), sigma_data)
        with torch.no_grad():
            return float(denoising_loss(energy, Teacher(teacher).inform(batch)).mean())

    return error(noised), error(visited)


def table(task: Task, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Quality beside the images that it took."""
    result = Table(title=f"{task.name}: each seed; differences over seeds, of one over its blocks")
    columns = ("energy", "images", "held-out loss", "distance", "− teacher", "V rose")
    for column in (*columns, "from it, noised", "visited"):
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
            *(" ".join(f"{e:.4f}" for e in row[name]) for name in ("noised", "visited")),
        )
    return result


if __name__ == "__main__":
    main()
