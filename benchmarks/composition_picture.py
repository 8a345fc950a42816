"""The picture of docs/compose.md: energies of two densities in the plane and of their compositions.

``python -m benchmarks.composition_picture`` writes ``docs/images/composition.png``.
"""

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor

from energydiff.energies import Energy, GaussianMixture, Mixture, Negation, Sum
from energydiff.report.style import PALETTE, bare, figure
from energydiff.sampling import Heun, SequentialMonteCarlo, karras_sigmas

HIGH, LOW, REACH = 10.0, 0.05, 3.2
NATS = 12  # shown above the lowest energy


def main() -> None:
    """Five energies, each with samples from the ODE and by sequential Monte Carlo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images/composition.png"))
    out = parser.parse_args().out
    torch.set_num_threads(1)
    turn = 2 * math.pi * torch.arange(24) / 24
    ring = GaussianMixture(2 * torch.stack([turn.cos(), turn.sin()], 1), 0.25)
    line = torch.linspace(-3, 3, 13)
    bar = GaussianMixture(torch.stack([line, torch.zeros(13)], 1), 0.25)
    # Far from the bar −E_B alone falls without end; beside a broad Gaussian it levels off.
    broad = Mixture([bar, GaussianMixture(torch.zeros(1, 2), 2.0)], [0.7, 0.3])
    panels: dict[str, Energy] = {
        "A": ring,
        "B": bar,
        "Sum: A and B": Sum([ring, bar]),
        "Mixture: A or B": Mixture([ring, bar]),
        "Sum: A and not B": Sum([ring, Negation(broad)], [2.0, 1.0]),
    }
    axis = torch.linspace(-REACH, REACH, 161)
    grid = torch.cartesian_prod(axis, axis)
    with figure(out, 12.5, 2.9) as drawing:
        for axes, (title, energy) in zip(drawing.subplots(1, 5), panels.items(), strict=True):
            height = energy(grid, LOW).view(161, 161).T
            height = (height - height.min()).clamp(max=NATS)
            axes.contourf(axis, axis, height, levels=24, cmap="Greys_r")
            ode, exact = samples(energy, 200)
            for points, colour in ((ode, PALETTE[1]), (exact, PALETTE[5])):
                axes.scatter(*points.T, s=4, color=colour, linewidths=0)
            axes.set(title=title, xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal")
            bare(axes)
    print(f"wrote {out}")


def samples(energy: Energy, count: int) -> tuple[Tensor, Tensor]:
    """By Heun's method, and one in ten of a population; both at the lowest noise."""
    sigmas = karras_sigmas(20, LOW, HIGH)
    ode = Heun(sigmas)(energy, seeds=range(count), trace=False).samples
    population = SequentialMonteCarlo(sigmas, particles=10 * count)
    exact = population(energy, seeds=range(10 * count), trace=False).samples
    return ode, exact[::10]


if __name__ == "__main__":
    main()
