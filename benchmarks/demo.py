"""The demo: an energy and its unconstrained baseline, trained and compared on real digits.

``make demo`` or ``python -m benchmarks.demo``. Trains an energy U-Net and a plain one of about its
operations with the same seeds on the same images (at once, one thread each), compares 1,000 samples
of each from the same noises as ``energydiff evaluate compare`` does, and writes the page, pictures
and ``summary.json`` to ``runs/demo/``. A second run finds both models trained and only compares.
By default it trains half as long as the configurations, to be over in some six minutes.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from energydiff.drawing import draw_samples
from energydiff.errors import UserError, sentences
from energydiff.evaluation import EvaluationData, Measurement, OpenedModel, Settings, compare
from energydiff.files import write_json
from energydiff.likelihood import held_out_loss
from energydiff.report import comparison_grid, free_energy_plot, samples_with_traces
from energydiff.report.page import page_model, write_page
from energydiff.report.tables import comparison_table
from energydiff.sampling import SampleResult

ARMS = ("energy", "baseline")
CONFIGS = Path("configs/digits")
CURVE = (6, 12, 18, 40)
# Nine levels, evenly spaced in log σ over the range that training visits.
HELD_OUT_SIGMAS = torch.logspace(-1.5, 0.9, 9).tolist()


def main() -> None:
    """Train, sample, certify, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    parser.add_argument("--num_samples", type=int, default=1000)
    parser.add_argument("--total_images", type=int, default=160_000, help="of each training")
    options = parser.parse_args()
    with sentences():
        run_demo(options.out, options.num_samples, options.total_images)


def run_demo(out: Path, num_samples: int, total_images: int) -> dict[str, Any]:
    """Everything; returns what ``summary.json`` holds."""
    # On images this small a second thread mostly waits for the first.
    torch.set_num_threads(1)
    settings = Settings(num_samples, batch_size=256, accelerator="cpu", store=out / "evaluation")
    print("Training both U-Nets on scikit-learn's digits, with the same seeds and images.")
    train_both(out, total_images)
    energy, baseline = (OpenedModel.at(out / arm) for arm in ARMS)

    print(f"Comparing {num_samples:,} samples of each.", flush=True)
    measurement = Measurement.open(EvaluationData(small_reference=True), settings)
    comparison = compare(measurement, [energy], [baseline], CURVE)
    summary = comparison.as_dict() | {
        "held_out_loss": {model.name: held_out(model, measurement) for model in (energy, baseline)},
        "held_out_sigmas": HELD_OUT_SIGMAS,
    }
    write_json(out / "summary.json", summary)
    pages = [page_model(model, settings) for model in (energy, baseline)]
    write_page(pages, comparison, {}, out / "report.html")
    draw(out, energy, baseline, settings)
    Console().print(comparison_table(comparison, measurement.extractor.distance_name))
    for name, value in summary["held_out_loss"].items():
        print(f"Held-out denoising loss of {name}: {value:.4f}")
    print(f"Written to {out}: report.html, samples.png, free_energy.png, summary.json.")
    return summary


def train_both(out: Path, total_images: int) -> None:
    """Train both arms side by side, and tell each log's newest line until they are done."""
    out.mkdir(parents=True, exist_ok=True)
    jobs, told = {}, dict.fromkeys(ARMS, "")
    for arm in ARMS:
        command = [
            *(sys.executable, "-m", "energydiff", "fit", "--config", f"{CONFIGS / arm}_unet.yaml"),
            *("--trainer.default_root_dir", str(out / arm)),
            *("--model.total_images", str(total_images)),
        ]
        with (out / f"{arm}.log").open("w") as log:
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            jobs[arm] = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        while any(job.poll() is None for job in jobs.values()):
            time.sleep(2)
            for arm in ARMS:
                lines = (out / f"{arm}.log").read_text().splitlines()
                lines = [line for line in lines if line.startswith(("image", "Calibr", "Saved"))]
                if lines and lines[-1] != told[arm]:
                    told[arm] = lines[-1]
                    print(f"    {arm:8}  {told[arm]}", flush=True)
    finally:
        for job in jobs.values():
            job.terminate()
    for arm, job in jobs.items():
        if job.returncode:
            raise UserError(f"training the {arm} failed; see {out / f'{arm}.log'}.")


def held_out(model: OpenedModel, measurement: Measurement) -> float:
    """Denoising loss on held-out images, the mean over nine noise levels."""
    denoiser = model.saved.denoiser
    sigma_data = float(denoiser.sigma_data)  # type: ignore[arg-type]
    return held_out_loss(denoiser, measurement.splits.held_out, HELD_OUT_SIGMAS, sigma_data)


def draw(out: Path, energy: OpenedModel, baseline: OpenedModel, settings: Settings) -> None:
    """The pictures: samples of both from the same noises, and V along all of the energy's."""

    def drawn(model: OpenedModel, count: int) -> SampleResult:
        sampler = settings.sampler_of(model.saved)
        return draw_samples(model.saved.denoiser, sampler, range(count), settings.drawing)

    ours, shown = drawn(energy, settings.num_samples), min(64, settings.num_samples)
    theirs = drawn(baseline, shown)
    normalization = energy.saved.normalization
    assert ours.trace is not None
    grids = {energy.name: ours.samples[:shown], baseline.name: theirs.samples}
    comparison_grid(grids, normalization, out / "samples.png")
    free_energy_plot(ours.trace, out / "free_energy.png")
    both = out / "samples_and_free_energy.png"
    samples_with_traces(ours.samples, ours.trace, normalization, both)


if __name__ == "__main__":
    main()
