"""The product of two classes of digits: drawn, looked at, corrected with an energy and without."""

from pathlib import Path

import torch
from torch import Tensor

from benchmarks.composition.fields import LINE, Chain, chain, product
from energydiff.energies import Denoiser, Energy
from energydiff.report.style import bare, figure
from energydiff.sampling import Heun, PopulationReport, SequentialMonteCarlo, karras_sigmas

CLASSES, SIGMA, HIGH, LEVELS, SHOWN = (3, 8), 0.5, 10.0, 40, 14


def drawn(energy: Denoiser, particles: int) -> tuple[dict[str, Tensor], PopulationReport]:
    """Rows of the figure, each denoised by the composition: the classes, then their product."""
    assert isinstance(energy, Energy)
    sigmas, seeds = karras_sigmas(LEVELS, SIGMA, HIGH), range(SHOWN)
    both = product(energy, CLASSES)
    assert isinstance(both, Energy)
    rows = {}
    for number in CLASSES:
        label = torch.full((SHOWN,), number)
        rows[f"{number}"] = Heun(sigmas, True)(
            energy, seeds=seeds, label=label, trace=False
        ).samples
    ode = Heun(sigmas)(both, seeds=seeds, trace=False).samples
    rows["product, Heun"] = ode - SIGMA**2 / both.densities * both.value_and_grad(ode, SIGMA)[1]
    sampler = SequentialMonteCarlo(sigmas, True, particles=particles)
    result = sampler(both, seeds=range(particles))
    assert result.trace is not None
    rows["product, exact"] = result.samples[:: particles // SHOWN][:SHOWN]
    return rows, sampler.diagnose(result.trace)


def spread(x: Tensor) -> float:
    """Mean distance of two samples."""
    return float(torch.pdist(x.flatten(1)).mean())


def draw_figure(rows: dict[str, Tensor], out: Path) -> None:
    """A row of digits for each way."""
    with figure(out, 9.0, 2.9) as drawing:
        grid = drawing.subplots(len(rows), SHOWN)
        for line, (name, images) in zip(grid, rows.items(), strict=True):
            for axes, image in zip(line, images, strict=True):
                axes.imshow(image[0], cmap="Greys_r", vmin=-1, vmax=1)
                bare(axes)
            line[0].set_ylabel(name, rotation=0, ha="right", va="center")


def chains(energy: Denoiser, baseline: Denoiser, moves: int) -> dict[str, Chain]:
    """MALA on the product at σ: by the energy, and by the line integral of the baseline's field."""
    with_energy, without = (product(model, CLASSES) for model in (energy, baseline))
    ways = {
        "energy": (with_energy, 0),
        f"energy, line of {LINE}": (with_energy, LINE),
        "baseline, line of 2": (without, 2),
        f"baseline, line of {LINE}": (without, LINE),
    }
    return {
        name: chain(field, line, SIGMA, moves, step=0.15, count=48)
        for name, (field, line) in ways.items()
    }
