"""The picture at the head of docs/landscape.md: how a landscape divides as the noise falls.

``python -m benchmarks.landscape_animation`` writes ``docs/images/landscape.gif``.
"""

import argparse
from pathlib import Path

import torch

from energydiff.energies import EmpiricalData
from energydiff.landscape.surface import Surface
from energydiff.report.landscape.animation import landscape_animation

# Seven points in three groups: one attractor becomes three, and those seven.
POINTS = (
    *((-1.70, 0.55), (-1.25, -0.35)),
    *((-0.05, -0.95), (0.55, -0.60)),
    *((0.85, 0.75), (1.60, 0.85), (1.55, 0.15)),
)
WINDOW = (-2.5, 2.5, -1.45, 1.45)
HIGH, LOW, FRAMES = 1.4, 0.12, 60


def main() -> None:
    """Every frame is computed on one core, in about two seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images/landscape.gif"))
    parser.add_argument("--frames", type=int, default=FRAMES)
    given = parser.parse_args()
    torch.set_num_threads(1)
    surface = Surface(EmpiricalData(torch.tensor(POINTS, dtype=torch.float64)))
    ends = torch.tensor([HIGH, LOW], dtype=torch.float64).log()
    sigmas = torch.linspace(*ends.tolist(), given.frames, dtype=torch.float64).exp()
    landscape_animation(surface, sigmas, given.out, WINDOW)
    print(f"wrote {given.out}")


if __name__ == "__main__":
    main()
