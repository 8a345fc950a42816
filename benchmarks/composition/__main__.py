"""``python -m benchmarks.composition --energy RUN --baseline RUN``: what samples compositions.

Prints the tables of docs/results/composition.md and writes its figure. Without runs of digits with
labels only what needs none.
"""

import argparse
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import energydiff
from benchmarks.composition.closed_forms import errors
from benchmarks.composition.digits import chains, draw_figure, drawn, spread
from benchmarks.composition.fields import Chain, fields_in_the_plane
from energydiff.numerals import fixed, number


def main() -> None:
    """Three tables and a figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.composition", description=__doc__)
    parser.add_argument("--energy", type=Path, help="A dually trained run of digits with labels.")
    parser.add_argument("--baseline", type=Path, help="An unconstrained run of the same.")
    parser.add_argument("--steps", type=int, default=2500, help="Of training, in the plane.")
    parser.add_argument("--moves", type=int, default=200, help="Of each chain.")
    parser.add_argument("--particles", type=int, default=256, help="Of the population of digits.")
    parser.add_argument("--out", type=Path, default=Path("docs/images/composed_digits.png"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    Console().print(closed_form_table())
    plane = fields_in_the_plane(options.steps, options.moves)
    Console().print(chain_table("A product of two mixtures in the plane", plane))
    if options.energy is None or options.baseline is None:
        return
    energy, baseline = map(energydiff.load, (options.energy, options.baseline))
    rows, report = drawn(energy, options.particles)
    draw_figure(rows, options.out)
    print(report)
    for name, images in rows.items():
        print(f"{name}: mean distance of two samples {number(spread(images))}")
    found = chains(energy, baseline, options.moves)
    Console().print(chain_table("The product of two classes of digits", found))


def closed_form_table() -> Table:
    """Errors of spread and shares, by composition, sampler and levels."""
    table = Table("composition", "sampler", "levels", "spread, %", "share, points", "ESS, %")
    for composition, sampler, levels, error in errors():
        ess = "–" if error.ess is None else fixed(100 * error.ess, 1)
        numbers = fixed(100 * error.spread, 1), fixed(100 * error.share, 1)
        table.add_row(composition, sampler, str(levels), *numbers, ess)
    return table


def chain_table(title: str, chains: dict[str, Chain]) -> Table:
    """What each way of deciding accepts, costs and comes to."""
    table = Table(
        "decides", "accepted, %", "calls per acceptance", "loop, nats", "R̂", "distance", title=title
    )
    for name, chain in chains.items():
        loop = " / ".join(map(number, chain.loop))
        table.add_row(
            *(name, fixed(100 * chain.accepted, 1), fixed(chain.calls, 2), loop),
            *(fixed(chain.rhat, 3), number(chain.distance)),
        )
    return table


if __name__ == "__main__":
    main()
