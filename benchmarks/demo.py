"""The demo: an energy and its unconstrained baseline, trained and compared on real digits.

``make demo`` or ``python -m benchmarks.demo``. Trains both U-Nets with the same seeds on the same
number of images (at once, one thread each, where there are two cores), draws 1,000 samples of each
from the same noises, and writes a table, pictures and ``summary.json`` to ``runs/demo/``. A second
run finds both models trained and only samples and compares.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from energydiff.data import Source, open_data
from energydiff.errors import UserError, sentences
from energydiff.evaluation import features, frechet_distance, gaussian_statistics, train_classifier
from energydiff.evaluation.cost import operations
from energydiff.landscape import held_out_loss, jacobian_asymmetry
from energydiff.random import HELD_OUT, PROBE, keyed_normal
from energydiff.report import comparison_grid, free_energy_plot, samples_with_traces
from energydiff.sampling import Heun, SampleResult, certify, karras_sigmas
from energydiff.saving import SavedModel, open_model

ARMS = ("energy", "baseline")
CONFIGS = Path("configs/digits")
# Nine levels, evenly spaced in log σ over the range that training visits.
HELD_OUT_SIGMAS = torch.logspace(-1.5, 0.9, 9).tolist()
STEPS = 18


def main() -> None:
    """Train, sample, certify, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    parser.add_argument("--num_samples", type=int, default=1000)
    parser.add_argument("--total_images", type=int, help="instead of the configurations' own")
    options = parser.parse_args()
    with sentences():
        run_demo(options.out, options.num_samples, options.total_images)


def run_demo(out: Path, num_samples: int, total_images: int | None) -> dict[str, Any]:
    """Everything; returns what ``summary.json`` holds."""
    # On images this small a second thread mostly waits for the first.
    torch.set_num_threads(1)
    start = time.monotonic()
    say = Stages(start)
    say("training both U-Nets on scikit-learn's digits, with the same seeds and images")
    train_both(out, total_images)
    models = {arm: open_model(out / arm) for arm in ARMS}

    say("training the three small classifiers whose features measure the samples")
    data = open_data("digits", labels=True)
    measure = DigitFeatures(data.train, data.held_out)
    say(f"their held-out accuracy is at least {measure.accuracy:.3f}")

    results: dict[str, SampleResult] = {}
    summary: dict[str, Any] = {}
    forward = call_operations(models["baseline"])
    for arm, model in models.items():
        say(f"sampling {num_samples} digits from the {arm}: Heun, {STEPS} steps")
        results[arm], seconds = timed_samples(model, num_samples)
        say(f"measuring the {arm}")
        summary[arm] = measured(model, results[arm], data.held_out, measure) | {
            "seconds": seconds,
            "forward_equivalents": results[arm].nfe * call_operations(model) / forward,
        }
    summary["reference"] = {
        "frechet_held_out_images": measure.held_out_distance(),
        "frechet_train_resampled": measure.resampled_distance(num_samples),
        "samples": num_samples,
        "sampler": f"heun, {STEPS} steps, final denoising",
        "held_out_sigmas": HELD_OUT_SIGMAS,
        "total_seconds": time.monotonic() - start,
    }
    say("drawing")
    draw(out, models["energy"], results)
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    Console().print(table(summary))
    say(f"done: {out / 'samples.png'}, {out / 'free_energy.png'}, {out / 'summary.json'}")
    return summary


class Stages:
    """Says what is happening, and since when."""

    def __init__(self, start: float) -> None:
        self.start = start

    def __call__(self, what: str) -> None:
        print(f"[{time.monotonic() - self.start:4.0f} s] {what}", flush=True)


def train_both(out: Path, total_images: int | None) -> None:
    """Train both arms: side by side with one thread each, or in turn on a single core."""
    together = (os.cpu_count() or 1) > 1
    jobs = {}
    for arm in ARMS:
        command = [
            *(sys.executable, "-m", "energydiff", "fit"),
            *("--config", str(CONFIGS / f"{arm}_unet.yaml")),
            *("--trainer.default_root_dir", str(out / arm)),
        ]
        if total_images is not None:
            command += ["--model.total_images", str(total_images)]
        out.mkdir(parents=True, exist_ok=True)
        log = out / f"{arm}.log"
        with log.open("w") as stream:
            environment = os.environ | ({"OMP_NUM_THREADS": "1"} if together else {})
            jobs[arm] = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment)
        if not together:
            follow({arm: jobs[arm]}, out)
    follow(jobs, out)


def follow(jobs: dict[str, subprocess.Popen[bytes]], out: Path) -> None:
    """Print each log's newest line whenever there is a new one, until all are done."""
    shown: dict[str, str] = {}
    try:
        running = True
        while running:
            time.sleep(2)
            running = any(job.poll() is None for job in jobs.values())
            for arm in jobs:
                line = last_line(out / f"{arm}.log")
                if line != shown.get(arm):
                    print(f"    {arm:8}  {line}", flush=True)
                shown[arm] = line
    finally:
        for job in jobs.values():
            job.terminate()
    for arm, job in jobs.items():
        if job.returncode:
            raise UserError(f"training the {arm} failed; see {out / f'{arm}.log'}.")


def last_line(log: Path) -> str:
    """The newest line of a log that is not a hint of some library."""
    lines = [
        line
        for line in log.read_text().splitlines()
        if line.startswith(("step", "Calibr", "Saved"))
    ]
    return lines[-1] if lines else "starting"


def timed_samples(model: SavedModel, count: int) -> tuple[SampleResult, float]:
    """Samples, with their trace if there is an energy, and the seconds they take without it."""
    sigmas = karras_sigmas(STEPS, model.sigma_min, model.sigma_max)
    sampler = Heun(sigmas, final_denoise=True)
    start = time.perf_counter()
    result = sampler(model.denoiser, seeds=range(count), trace=False)
    seconds = time.perf_counter() - start
    if model.denoiser.energy is not None:
        result = sampler(model.denoiser, seeds=range(count))
    return result, seconds


def call_operations(model: SavedModel) -> int:
    """Floating-point operations of one denoiser call; the baseline's is one forward pass."""
    x = torch.zeros(8, *model.denoiser.shape)
    with torch.no_grad():
        return operations(lambda: model.denoiser.denoise(x, 1.0))


class DigitFeatures:
    """Fréchet distances to the training digits in features of a small digit classifier.

    In percent of the distance of a Gaussian fitted to the pixels: 0 is perfect, 100 is a model that
    knows means and covariances only. The mean over three classifiers that differ in their seed.
    Not FID: that is defined on Inception features.
    """

    def __init__(self, train: Source, held_out: Source) -> None:
        self.train, self.held_out = everything(train), everything(held_out)
        trained = [
            train_classifier(*self.train, held_out=self.held_out, seed=seed) for seed in range(3)
        ]
        self.accuracy = min(classifier.held_out_accuracy for classifier in trained)
        self.models = [classifier.model for classifier in trained]
        self.references = [gaussian_statistics(features(m, self.train[0])) for m in self.models]
        self.percent = [d / 100 for d in self._distances(gaussian_fit(self.train[0], 1000))]

    def distance(self, images: Tensor) -> float:
        """Of images (n, 1, 8, 8) in model coordinates."""
        pairs = zip(self._distances(images), self.percent, strict=True)
        return sum(distance / percent for distance, percent in pairs) / len(self.models)

    def _distances(self, images: Tensor) -> list[float]:
        statistics = [gaussian_statistics(features(m, images)) for m in self.models]
        pairs = zip(statistics, self.references, strict=True)
        return [frechet_distance(*mine, *theirs) for mine, theirs in pairs]

    def held_out_distance(self) -> float:
        """Of real digits that training never saw."""
        return self.distance(self.held_out[0])

    def resampled_distance(self, count: int) -> float:
        """Of ``count`` draws from the training digits themselves: the floor at this number."""
        generator = torch.Generator().manual_seed(0)
        return self.distance(
            self.train[0][torch.randint(len(self.train[0]), (count,), generator=generator)]
        )


def gaussian_fit(images: Tensor, count: int) -> Tensor:
    """``count`` draws from the Gaussian with the images' mean and covariance."""
    pixels = images.flatten(1).double()
    jitter = 1e-9 * torch.eye(pixels.shape[1])  # some pixels never vary
    root = torch.linalg.cholesky(torch.cov(pixels.T) + jitter)
    noise = keyed_normal(0, range(count), pixels.shape[1:], PROBE).double()
    return (pixels.mean(0) + noise @ root.T).float().view(count, *images.shape[1:])


def everything(source: Source) -> tuple[Tensor, Tensor]:
    """All images (N, 1, 8, 8) in model coordinates, and their classes (N,)."""
    raw, labels = zip(*(source[i] for i in range(len(source))), strict=True)
    return source.normalization.encode(torch.stack(raw)), torch.tensor(labels)


def measured(
    model: SavedModel, result: SampleResult, held_out: Source, measure: DigitFeatures
) -> dict[str, Any]:
    """One arm's column of the table, but for what it cost."""
    denoiser = model.denoiser
    sigma_data = float(denoiser.sigma_data)  # type: ignore[arg-type]
    clean = measure.held_out[0][:16]
    noisy = clean + 0.5 * keyed_normal(0, range(len(clean)), denoiser.shape, HELD_OUT)
    certificate = certify(result.trace) if result.trace is not None else None
    return {
        "heldout_loss": held_out_loss(denoiser, held_out, HELD_OUT_SIGMAS, sigma_data),
        "frechet": measure.distance(result.samples),
        "nfe": result.nfe,
        "rises": certificate.rises if certificate else None,
        "steps": certificate.steps if certificate else None,
        "asymmetry": jacobian_asymmetry(denoiser, noisy, 0.5),
    }


def draw(out: Path, model: SavedModel, results: dict[str, SampleResult]) -> None:
    """The pictures."""
    trace = results["energy"].trace
    assert trace is not None
    comparison_grid(
        {arm: result.samples[:64] for arm, result in results.items()},
        model.normalization,
        out / "samples.png",
    )
    free_energy_plot(trace, out / "free_energy.png")
    samples_with_traces(
        results["energy"].samples, trace, model.normalization, out / "samples_and_free_energy.png"
    )


def table(summary: dict[str, Any]) -> Table:
    """The summary for the eye."""
    energy, baseline = (summary[arm] for arm in ARMS)
    view = Table(title="Energy U-Net against the same U-Net unconstrained, equal images")
    for heading in ("", *ARMS):
        view.add_column(heading, justify="left" if not heading else "right")
    rows = {
        "held-out denoising loss": ("heldout_loss", "{:.4f}"),
        "Fréchet distance in digit-classifier features": ("frechet", "{:.2f}"),
        "function evaluations per sample": ("nfe", "{}"),
        "forward passes they amount to": ("forward_equivalents", "{:.0f}"),
        "seconds for all samples": ("seconds", "{:.1f}"),
        "asymmetry of the Jacobian": ("asymmetry", "{:.1e}"),
    }
    for name, (key, form) in rows.items():
        view.add_row(name, form.format(energy[key]), form.format(baseline[key]))
    falling = 1 - energy["rises"] / energy["steps"]
    view.add_row("share of steps on which V fell", f"{falling:.2%}", "no energy")
    reference = summary["reference"]
    view.caption = (
        "distances in percent of a Gaussian fit of the pixels; real held-out digits have"
        f" {reference['frechet_held_out_images']:.1f}, redrawn training digits"
        f" {reference['frechet_train_resampled']:.1f}"
    )
    return view


if __name__ == "__main__":
    main()
