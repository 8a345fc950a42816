"""The price of a certificate that is proved: natural energies beside the convex and the default.

    python -m benchmarks.natural [--seeds 0 1 2] [--out FOLDER] [--tasks digits mixture] [--arms …]

Trains on scikit-learn's digits and on a 2-D mixture whose truth is known, keeps what is trained,
and prints losses, Fréchet distances, likelihoods and how often V, or a part of it, rises along
Euler's method and a guard of it that also asks for the total.
"""

import argparse
import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.lyapunov import (
    MIXTURE,
    SIGMAS,
    error_of_energy,
    first,
    likelihoods,
    mixture_points,
)
from energydiff.data import Arrays, Source
from energydiff.denoisers import EnergyDenoiser, NaturalEnergy
from energydiff.diffusion import DenoisingScoreMatching, MaximumLikelihood, NoisyBatch
from energydiff.errors import sentences
from energydiff.evaluation import EvaluationData, Measurement, OpenedModel, Settings
from energydiff.evaluation.cost import timings
from energydiff.files import write_json
from energydiff.likelihood import bits_per_dim, held_out_losses
from energydiff.memorisation.trainings import train_missing
from energydiff.progress import progress
from energydiff.sampling import Euler, Guarded, Trace, certify, karras_sigmas
from energydiff.saving import SavedModel, open_model

STEPS = (6, 18, 64)
ROUNDS = 31  # of what is timed in turn


@dataclass(frozen=True)
class Arm:
    """A configuration, with what it is trained by beyond it."""

    name: str
    config: str
    more: tuple[str, ...] = ()


CONVEX = ("--model.parametrization", "convex", "--model.backbone", "InputConvex")
ARMS = {
    "digits": [
        Arm("natural, dense", "digits/natural_dense"),
        Arm("natural, convolutional", "digits/natural_conv"),
        Arm("convex", "digits/convex_mlp"),
        Arm("default, MLP", "digits/energy_mlp"),
    ],
    "mixture": [
        Arm("natural, dense", "mixture/natural"),
        Arm("convex", "mixture/energy_mlp", CONVEX),
        Arm("default, MLP", "mixture/energy_mlp"),
    ],
}


def main() -> None:
    """Train what is missing, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--arms", nargs="+", help="some of them, by name; all by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=256, help="trajectories per count")
    parser.add_argument("--images", type=int, default=32, help="held-out images for likelihoods")
    parser.add_argument("--out", type=Path, default=Path("runs/natural"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with sentences():
        points = options.out / "mixture.npy"
        if not points.is_file():
            options.out.mkdir(parents=True, exist_ok=True)
            np.save(points, mixture_points(torch.Generator().manual_seed(0)).numpy())
        wanted = options.arms or [arm.name for arms in ARMS.values() for arm in arms]
        arms = {t: [a for a in ARMS[t] if a.name in wanted] for t in options.tasks}
        jobs = [(t, s, a) for t in options.tasks for s in options.seeds for a in arms[t]]
        runs = {folder(options.out, *job): arguments(*job, points) for job in jobs}
        train_missing(runs, options.jobs)
        rows = []
        with progress("Measuring", len(jobs)) as tell:
            for done, (task, seed, arm) in enumerate(jobs, start=1):
                path = folder(options.out, task, seed, arm)
                found = measure(path, task, data_of(task, points), options)
                rows.append({"task": task, "seed": seed, "arm": arm.name} | found)
                tell(done)
        write_json(options.out / "summary.json", rows)
        for task in options.tasks:
            first_seed = [folder(options.out, task, options.seeds[0], arm) for arm in arms[task]]
            Console().print(table([r for r in rows if r["task"] == task], task))
            Console().print(costs(first_seed, [arm.name for arm in arms[task]]))


def folder(out: Path, task: str, seed: int, arm: Arm) -> Path:
    """Where one run lives."""
    return out / f"{task}_{arm.name.replace(',', '').replace(' ', '_')}_{seed}"


def arguments(task: str, seed: int, arm: Arm, points: Path) -> list[str]:
    """Of ``energydiff fit``."""
    of_data = ("--data.source.root", str(points)) if task == "mixture" else ()
    seeded = ("--seed_everything", str(seed))
    unwatched = ("--monitor.every_images", "0")
    return ["--config", f"configs/{arm.config}.yaml", *arm.more, *of_data, *seeded, *unwatched]


def data_of(task: str, points: Path) -> EvaluationData:
    """What a task is measured on; points are coordinates as they are."""
    if task == "mixture":
        return EvaluationData(Arrays(points, value_range=(-1.0, 1.0)))
    return EvaluationData()


def measure(
    run: Path, task: str, data: EvaluationData, options: argparse.Namespace
) -> dict[str, Any]:
    """One model on held-out data, and along its own samples."""
    model = open_model(run)
    energy = model.denoiser
    assert isinstance(energy, EnergyDenoiser | NaturalEnergy)
    held_out: Source = first(data.open().held_out, 2_000)
    losses = held_out_losses(energy, held_out, SIGMAS, energy.sigma_data)
    row: dict[str, Any] = {"parameters": sum(p.numel() for p in energy.parameters())}
    row["held-out loss"] = float(losses.mean())
    row |= {f"loss at σ = {s:.2g}": float(v) for s, v in zip(SIGMAS, losses, strict=True)}
    if task == "digits":
        for sampler in ("heun", "euler"):
            settings = Settings(1_000, sampler=sampler, store=options.out)
            found = Measurement.open(data, settings).measure(OpenedModel.at(run))
            row[f"Fréchet distance, {sampler}"] = found.quality.frechet
    else:
        row["error of E, nats"] = error_of_energy(energy)
        row["distance to a mode"] = distance_to_a_mode(model, options.samples)
    clean = held_out.clean(options.images)
    for name, nats in likelihoods(model, clean).items():
        bits = bits_per_dim(nats, energy.dim, model.normalization)
        row[f"bits/dim by {name}"] = float(bits.mean())
    return row | rises(model, options.samples)


def rises(model: SavedModel, samples: int) -> dict[str, Any]:
    """Rises of V and its parts, and steps, by Euler and by the guard that asks for the total."""
    counts: dict[str, Any] = {"steps": 0, "V": 0, "descent": 0, "landscape": 0, "guarded V": 0}
    for steps in STEPS:
        plain = Euler(karras_sigmas(steps, *model.denoiser.require_noise()), final_denoise=True)
        found = certify(plain(model.denoiser, seeds=range(samples)).trace)
        kept = certify(guarded(plain, model, samples))
        counts["steps"] += found.steps
        counts["V"] += found.rises
        counts["descent"] += found.descent_rises
        counts["landscape"] += found.landscape_rises
        counts["guarded V"] += kept.rises
        counts["claim"] = found.claim
    return counts


def guarded(plain: Euler, model: SavedModel, samples: int) -> Trace:
    """The same samples where only steps on which V falls in total are taken, if there are any."""
    trace = Guarded(plain, total=True)(model.denoiser, seeds=range(samples)).trace
    assert trace is not None
    return trace


def distance_to_a_mode(model: SavedModel, samples: int) -> float:
    """Mean over samples of Euler's method in 18 steps; of the mixture itself it is .050."""
    sigmas = karras_sigmas(18, *model.denoiser.require_noise())
    x = Euler(sigmas, final_denoise=True)(model.denoiser, seeds=range(samples)).samples
    return float(torch.cdist(x, MIXTURE.means.to(x)).amin(1).mean())


def table(rows: list[dict[str, Any]], title: str) -> Table:
    """Means over seeds, quantities down and arms across."""
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    result = Table("", *arms, title=f"{title}, mean of {len({r['seed'] for r in rows})} seeds")
    for quantity in (key for key in rows[0] if key not in ("task", "seed", "arm")):
        cells = []
        for arm in arms:
            values = [row[quantity] for row in rows if row["arm"] == arm]
            numbers = not isinstance(values[0], str)
            each = " ".join(f"{v:.4g}" for v in values) if numbers else ""
            cells.append(f"{statistics.mean(values):.4g} ({each})" if numbers else values[0])
        result.add_row(quantity, *cells)
    return result


def costs(runs: list[Path], names: list[str]) -> Table:
    """Processor time of a training step and of a denoiser call, in turn, over the last arm's."""
    models = dict(zip(names, (open_model(run).denoiser for run in runs), strict=True))
    result = Table("time, over the last", *names)
    for what, work in {"step": training_step, "call": denoiser_call}.items():
        taken = timings({name: work(model) for name, model in models.items()}, ROUNDS, "cpu")
        last = taken[names[-1]]
        result.add_row(what, *(f"{timing.over(last).median:.2f}" for timing in taken.values()))
    return result


def training_step(model: Any) -> Callable[[], None]:
    """Loss and gradient of 64 images: by likelihood where it is exact, else by denoising."""
    objective = MaximumLikelihood() if model.exact else DenoisingScoreMatching()
    x0 = torch.randn(64, *model.shape)
    batch = NoisyBatch(x0, torch.logspace(-1.5, 1, 64), torch.randn_like(x0), model.sigma_data)

    def step() -> None:
        model.train().requires_grad_(True)  # a saved model comes without
        sum(part.mean() for part in objective(model, batch).values()).backward()  # type: ignore[union-attr]

    return step


def denoiser_call(model: Any) -> Callable[[], None]:
    """E and D of 64 images, as a sampler asks."""
    x = torch.randn(64, *model.shape)

    def call() -> None:
        model.eval().value_and_grad(x, 0.5)

    return call


if __name__ == "__main__":
    main()
