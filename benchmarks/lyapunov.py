"""What makes V a Lyapunov function of a learned energy: score matching, calibration, dual training.

    python -m benchmarks.lyapunov [--seeds 0 1 2] [--fashion path/to/fashion-mnist] [--out FOLDER]

Trains an energy on a 2-D mixture whose truth is known, on digits and, given its files, on
Fashion-MNIST, by denoising score matching alone and dually, with the same images and noise. What
is trained already is kept. Each model trained by denoising alone is measured with a gauge of zero
and after calibration. Prints quality, how far ∂E/∂log σ is biased, how often V rises along
unguarded and guarded sampling, and the likelihood three ways.
"""

import argparse
import os
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from energydiff.data import Arrays, Idx, Source
from energydiff.denoisers import EnergyDenoiser, NaturalEnergy
from energydiff.diffusion import NoisyBatch, anchor_gauge, calibrate_gauge
from energydiff.energies import Energy, GaussianMixture, NoiseRange
from energydiff.errors import sentences
from energydiff.evaluation import EvaluationData, Measurement, OpenedModel, Settings
from energydiff.files import write_json
from energydiff.likelihood import (
    bits_per_dim,
    denoising_bound,
    gaussian_prior,
    held_out_losses,
    ode_likelihood,
)
from energydiff.memorisation.trainings import train_missing
from energydiff.progress import progress
from energydiff.random import HELD_OUT, keyed_normal
from energydiff.sampling import Euler, Heun, certify, karras_sigmas, make_sampler
from energydiff.saving import SavedModel, open_model

OBJECTIVES = {"denoising": "DenoisingScoreMatching", "dual": "DualScoreMatching"}
SIGMAS = torch.logspace(-1.5, 0.9, 9).tolist()
BIAS_SIGMAS = (0.03, 0.12, 0.5, 2.0)
STEPS = (6, 18, 64)
SAMPLERS = ("euler", "heun", "guarded_heun")
POINTS = 50_000
MANY_STEPS = 1_000_000
MIXTURE = GaussianMixture(
    0.8
    * torch.stack(
        [torch.arange(8).mul(torch.pi / 4).cos(), torch.arange(8).mul(torch.pi / 4).sin()], 1
    ),
    std=0.04,
    weights=torch.arange(1.0, 9.0),
)


@dataclass(frozen=True)
class Task:
    """A data set with the configuration trained on it."""

    name: str
    config: str
    data: EvaluationData
    root: Path | None = None


def main() -> None:
    """Train what is missing, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--fashion", type=Path, help="folder of Fashion-MNIST's IDX files")
    parser.add_argument("--samples", type=int, default=256, help="trajectories per sampler")
    parser.add_argument("--images", type=int, default=32, help="held-out images for likelihoods")
    parser.add_argument("--out", type=Path, default=Path("runs/lyapunov"))
    parser.add_argument(
        "--million", action="store_true", help="also count over 10^6 unguarded steps of dual models"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with sentences():
        tasks = tasks_of(options)
        train_missing(
            {
                run_folder(options.out, task, objective, seed): [
                    *("--config", f"configs/{task.config}.yaml"),
                    *(("--data.source.root", str(task.root)) if task.root else ()),
                    *("--model.objective", f"energydiff.diffusion.{name}"),
                    *("--seed_everything", str(seed)),
                ]
                for task in tasks
                for seed in options.seeds
                for objective, name in OBJECTIVES.items()
            },
            options.jobs,
        )
        rows = measure_all(tasks, options)
        write_json(options.out / "summary.json", rows)
        if options.million:
            count_many(tasks, options)
        for task in tasks:
            Console().print(table(task.name, [r for r in rows if r["task"] == task.name]))


def tasks_of(options: argparse.Namespace) -> list[Task]:
    """The data sets, the mixture's points drawn anew where there are none."""
    points = options.out / "mixture.npy"
    if not points.is_file():
        options.out.mkdir(parents=True, exist_ok=True)
        np.save(points, mixture_points(torch.Generator().manual_seed(0)).numpy())
    tasks = [
        # Points are coordinates as they are.
        Task(
            "2-D mixture",
            "mixture/energy_mlp",
            EvaluationData(Arrays(points, value_range=(-1.0, 1.0))),
            points,
        ),
        Task("digits, Energy Transformer", "digits/energy_transformer", EvaluationData()),
        Task("digits, U-Net", "digits/energy_inner_product", EvaluationData()),
    ]
    if options.fashion:
        data = EvaluationData(Idx(options.fashion, labels=True))
        tasks.append(
            Task("Fashion-MNIST", "fashion_mnist/energy_transformer", data, options.fashion)
        )
    return tasks


def mixture_points(generator: torch.Generator) -> Tensor:
    """Draws from the mixture, (POINTS, 2)."""
    weights = MIXTURE.weights
    mode = torch.multinomial(weights, POINTS, replacement=True, generator=generator)
    noise = torch.randn(POINTS, 2, generator=generator)
    return MIXTURE.means[mode] + MIXTURE.std[mode] * noise


def run_folder(out: Path, task: Task, objective: str, seed: int) -> Path:
    """Where one run lives."""
    return out / f"{task.config.replace('/', '_')}_{objective}_{seed}"


def measure_all(tasks: list[Task], options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for every task, way and seed."""
    rows = []
    jobs = [(t, s, o) for t in tasks for s in options.seeds for o in OBJECTIVES]
    with progress("Measuring", len(jobs)) as tell:
        for done, (task, seed, objective) in enumerate(jobs, start=1):
            run = run_folder(options.out, task, objective, seed)
            model = open_model(run)
            energy = model.denoiser
            assert isinstance(energy, EnergyDenoiser)
            data = task.data.open()
            clean = first(data.train, 4_096).clean()
            ways = ("dual",)
            if objective == "denoising":
                ways = ("denoising", "denoising, calibrated")  # type: ignore[assignment]
            for way in ways:
                if way == "denoising, calibrated":
                    calibrate_gauge(energy, clean, *energy.require_noise())
                else:
                    anchor_gauge(energy, clean, energy.require_noise().sigma_max)
                row = {"task": task.name, "seed": seed, "way": way}
                rows.append(row | measure(model, data.held_out, options))
                if isinstance(task.data.source, Arrays):
                    rows[-1]["error of E"] = error_of_energy(energy)
                else:
                    rows[-1]["Fréchet distance"] = quality(task, run, options.out)
            tell(done)
    return rows


def count_many(tasks: list[Task], options: argparse.Namespace) -> None:
    """Print how often V rises over a million unguarded steps, without any gauge."""
    for task in tasks:
        model = open_model(run_folder(options.out, task, "dual", options.seeds[0]))
        energy = model.denoiser
        assert isinstance(energy, EnergyDenoiser)
        energy.gauge.offset.zero_()
        rises, steps = many_rises(energy, energy.require_noise())
        print(f"{task.name}: V rose on {rises} of {steps:,} unguarded steps", flush=True)


def many_rises(energy: EnergyDenoiser, sigmas: NoiseRange) -> tuple[int, int]:
    """Rises of V, and steps: 18 and 64 of Euler and 18 of Heun in turn, a million in all."""
    methods = [Euler(karras_sigmas(18, *sigmas)), Euler(karras_sigmas(64, *sigmas))]
    methods.append(Heun(karras_sigmas(18, *sigmas)))
    rises = steps = first = 0
    with progress("Counting rises over steps", MANY_STEPS) as tell:
        while steps < MANY_STEPS:
            seeds = range(first, first + 500)
            for method in methods:
                certificate = certify(method(energy, seeds=seeds).trace)
                rises, steps = rises + certificate.rises, steps + certificate.steps
            first += 500
            tell(min(steps, MANY_STEPS))
    return rises, steps


def measure(model: SavedModel, held_out: Source, options: argparse.Namespace) -> dict[str, Any]:
    """One model on held-out data."""
    energy = model.denoiser
    assert isinstance(energy, EnergyDenoiser)
    source = first(held_out, 2_000)
    losses = held_out_losses(energy, source, SIGMAS, energy.sigma_data)
    row: dict[str, Any] = {"loss": float(losses.mean())}

    clean = source.clean()
    for sigma in BIAS_SIGMAS:
        noise = keyed_normal(1, range(len(clean)), energy.shape, HELD_OUT)
        batch = NoisyBatch(clean, clean.new_tensor(sigma).expand(len(clean)), noise, 1.0)
        residual = energy.noise_derivative(batch.x, batch.sigma) - batch.time_target
        row[f"bias {sigma:g}"] = float(residual.mean())

    for sampler in SAMPLERS:
        for steps in STEPS:
            sigmas = karras_sigmas(steps, *model.denoiser.require_noise())
            method = make_sampler(sampler, sigmas, final_denoise=False)
            certificate = certify(method(energy, seeds=range(options.samples)).trace)
            name = f"{sampler} {steps}"
            row[name] = certificate.rises / certificate.steps
            row[f"{name}, descent"] = certificate.descent_rises / certificate.steps
    for name, nats in likelihoods(model, clean[: options.images]).items():
        bits = bits_per_dim(nats, energy.dim, model.normalization)
        row[f"bits/dim by {name}"] = float(bits.mean())
    return row


def quality(task: Task, run: Path, store: Path) -> float:
    """Fréchet distance of 1,000 samples, which the gauge cannot change."""
    measurement = Measurement.open(task.data, Settings(1_000, store=store))
    return measurement.measure(OpenedModel.at(run)).quality.frechet


def likelihoods(model: SavedModel, x0: Tensor) -> dict[str, Tensor]:
    """−log p of x0 + σ_min ε three ways, each (B,), nats."""
    energy = model.denoiser.require_energy()
    assert isinstance(energy, EnergyDenoiser | NaturalEnergy)
    sigmas = energy.require_noise()
    x = x0 + sigmas.sigma_min * keyed_normal(0, range(len(x0)), energy.shape, HELD_OUT)
    prior = gaussian_prior(energy.shape, energy.sigma_data)
    with torch.no_grad():
        return {
            "energy": energy(x, sigmas.sigma_min),
            "ODE": ode_likelihood(energy, x, *sigmas, prior).nats,
            "bound": denoising_bound(energy, x0, *sigmas, prior),
        }


def error_of_energy(energy: Energy) -> float:
    """Mean |E − E_exact| over noisy draws and σ, nats."""
    points = mixture_points(torch.Generator().manual_seed(1))[:2_000]
    errors = []
    with torch.no_grad():
        for sigma in SIGMAS:
            noise = keyed_normal(2, range(len(points)), energy.shape, HELD_OUT)
            x = points + sigma * noise
            errors.append((energy(x, sigma) - MIXTURE(x, sigma)).abs().mean())
    return float(torch.stack(errors).mean())


def first(source: Source, count: int) -> Source:
    """The first samples of a source."""
    return source.select(np.arange(min(count, len(source))))


def table(name: str, rows: list[dict[str, Any]]) -> Table:
    """Means over seeds, quantities down and ways across."""
    ways = list(dict.fromkeys(row["way"] for row in rows))
    result = Table("", *ways, title=f"{name}, mean of {len({r['seed'] for r in rows})} seeds")
    for quantity in (key for key in rows[0] if key not in ("task", "seed", "way")):
        cells = []
        for way in ways:
            mean = statistics.mean(row[quantity] for row in rows if row["way"] == way)
            share = quantity.split()[0] in SAMPLERS
            cells.append(f"{100 * mean:.3g} %" if share else f"{mean:.4g}")
        result.add_row(quantity, *cells)
    return result


if __name__ == "__main__":
    main()
