"""The likelihood of held-out images three ways, and how consistent the energy is.

``python -m benchmarks.likelihood pretrained/digits_energy_unet``. All densities are those of the
images with noise σ_min on them; docs/likelihood.md says what the columns mean.
"""

import argparse
import math
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from energydiff.data import Digits, Idx
from energydiff.denoisers import EnergyDenoiser, NaturalEnergy, UnconstrainedDenoiser
from energydiff.errors import UserError, sentences
from energydiff.files import write_json
from energydiff.likelihood import (
    bits_per_dim,
    denoising_bound,
    gaussian_prior,
    heat_residual,
    lossless_bits_per_dim,
    ode_likelihood,
)
from energydiff.random import HELD_OUT, keyed_normal
from energydiff.saving import SavedModel, open_model

HEAT_LEVELS = 5


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write the numbers if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="run folder, checkpoint or export")
    parser.add_argument("--fashion", type=Path, help="folder of Fashion-MNIST's IDX files")
    parser.add_argument("--images", type=int, default=64, help="the first of the held-out ones")
    parser.add_argument("--probes", type=int, default=1, help="per trace; 0: exact")
    parser.add_argument("--levels", type=int, default=64, help="nodes of the bound")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    options = parser.parse_args(arguments)
    with sentences():
        spec = Idx(options.fashion) if options.fashion else Digits()
        held_out = spec.open().held_out
        count = min(options.images, len(held_out))
        raw = torch.stack([held_out[i][0] for i in range(count)])
        model = open_model(options.model)
        numbers = measure(model, raw, options.probes or None, options.levels)
        show(numbers)
        if options.json:
            write_json(options.json, numbers)


def measure(model: SavedModel, raw: Tensor, probes: int | None, levels: int) -> dict[str, Any]:
    """Everything about raw images (N, \\*shape); means with the standard error over images."""
    denoiser = model.denoiser
    if not isinstance(denoiser, EnergyDenoiser | NaturalEnergy | UnconstrainedDenoiser):
        raise UserError(f"{type(denoiser).__name__} is no trained model: nothing to measure.")
    low, high = denoiser.require_noise()
    x0 = model.normalization.encode(raw)
    noise = keyed_normal(0, range(len(x0)), denoiser.shape, HELD_OUT)
    x = x0 + low * noise
    prior = gaussian_prior(denoiser.shape, denoiser.sigma_data)

    nats, seconds = {}, {}
    for name in ("energy", "ODE", "bound") if denoiser.energy else ("ODE", "bound"):
        start = time.process_time()
        if name == "energy":
            nats[name] = denoiser.require_energy()(x, low).detach().double()
        elif name == "ODE":
            nats[name] = ode_likelihood(denoiser, x, low, high, prior, probes=probes).nats
        else:
            nats[name] = denoising_bound(denoiser, x0, low, high, prior, levels=levels)
        seconds[name] = time.process_time() - start
    rows = {
        name: {
            "nats": _mean(value),
            "bits/dim": _mean(bits_per_dim(value, denoiser.dim, model.normalization)),
            "lossless bits/dim": _mean(
                lossless_bits_per_dim(value, x, raw, low, model.normalization)
            ),
            "minus ODE, bits/dim": _mean((value - nats["ODE"]) / (denoiser.dim * math.log(2))),
            "CPU seconds": (seconds[name], 0.0),
        }
        for name, value in nats.items()
    }
    heat = {}
    if denoiser.energy is not None:
        for sigma in torch.logspace(*torch.tensor([low, high]).log10().tolist(), HEAT_LEVELS):
            result = heat_residual(denoiser.energy, x0 + sigma * noise, float(sigma), probes=probes)
            heat[f"{sigma:.3g}"] = {"score": result.score, "residual": _mean(result.residual)}
    return {"images": len(raw), "sigma_min": low, "likelihood": rows, "heat": heat}


def show(numbers: dict[str, Any]) -> None:
    """Two tables."""
    console = Console()
    rows = numbers["likelihood"]
    table = Table(title=f"{numbers['images']} held-out images, σ_min = {numbers['sigma_min']}")
    for column in ("by", *next(iter(rows.values()))):
        table.add_column(column)
    for name, row in rows.items():
        table.add_row(name, *(f"{mean:.3f} ± {error:.3f}" for mean, error in row.values()))
    console.print(table)
    if numbers["heat"]:
        table = Table("σ", "score", "residual, nats", title="heat equation")
        for sigma, row in numbers["heat"].items():
            mean, error = row["residual"]
            table.add_row(sigma, f"{row['score']:.4f}", f"{mean:.2f} ± {error:.2f}")
        console.print(table)


def _mean(values: Tensor) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(values.mean()), float(values.std()) / len(values) ** 0.5


if __name__ == "__main__":
    main()
