"""How much the associative memories hold: recall against load, beside theory.

    python -m benchmarks.capacity --config configs/memory/capacity.yaml

Each memory stores K = load × N random patterns of ±1 on N neurons, is shown corrupted ones, and
retrieves to a fixed point. A pattern counts as recalled if at most a given share of its bits is
wrong in the signs of what came back. Prints a table; writes ``recall.csv`` and ``recall.png``.
"""

import csv
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jsonargparse import ArgumentError, ArgumentParser
from rich.console import Console
from rich.table import Table
from scipy.special import erfcinv
from torch import Tensor

from energydiff.errors import UserError, sentences
from energydiff.memory import (
    BinaryHopfield,
    ContinuousHopfield,
    Corruption,
    Memory,
    PolynomialMemory,
)
from energydiff.progress import with_progress
from energydiff.report import recall_plot

SHOWN = 50  # most patterns shown of one set; then new ones are drawn and stored


@dataclass(frozen=True)
class Recall:
    """One memory at one load; shares of the probes, ``bit_error`` a share of their bits."""

    memory: str
    load: float
    patterns: int
    probes: int
    recalled: float
    bit_error: float
    at_rest: float
    certified: bool


def capacity(
    memories: dict[str, Memory],
    corruption: Corruption,
    loads: list[float],
    neurons: int = 64,
    probes: int = 200,
    recalled: float = 0.05,
    seed: int = 0,
    out: Path = Path("runs/capacity"),
) -> list[Recall]:
    """Recall of every memory at every load.

    Args:
        memories: Memories by the name they have in the table.
        corruption: What is done to a pattern before it is retrieved.
        loads: Patterns stored per neuron.
        neurons: N, bits of a pattern.
        probes: Patterns retrieved for one number, at least.
        recalled: Largest share of wrong bits with which a pattern counts as recalled.
        seed: Of the patterns, which are the same for all memories.
        out: Folder for recall.csv and recall.png.
    """
    if not memories or not loads or min(loads) <= 0:
        raise UserError("capacity needs at least one memory and positive loads.")
    if min(neurons, probes) < 1 or not 0 <= recalled < 0.5:
        raise UserError(
            "capacity needs neurons >= 1, probes >= 1 and recalled from 0 to below 0.5, got"
            f" {neurons}, {probes} and {recalled}."
        )
    cases = [(name, load) for load in loads for name in memories]
    results = [
        measure(name, memories[name], load, corruption, neurons, probes, recalled, seed)
        for name, load in with_progress(cases, len(cases), "Retrieving")
    ]
    theory = {name: theoretical_load(m, neurons, recalled) for name, m in memories.items()}
    write(results, theory, out)
    Console().print(table(results, theory, f"{neurons} neurons, {corruption}"))
    return results


def measure(
    name: str,
    memory: Memory,
    load: float,
    corruption: Corruption,
    neurons: int,
    probes: int,
    recalled: float,
    seed: int,
) -> Recall:
    """One number of the table, with what belongs to it."""
    count = max(1, round(load * neurons))
    wrong, rested, certified = [], [], True
    for patterns, draw in pattern_sets(count, neurons, probes, seed):
        shown = patterns[:SHOWN]
        bad = corruption(shown, seeds=range(draw * SHOWN, draw * SHOWN + len(shown)))
        result = memory.store(patterns).retrieve(bad.x, bad.known)
        wrong.append(((result.samples < 0) != (shown < 0)).double().mean(1))
        rested.append(result.at_rest.double())
        certified &= result.certificate.holds
    error = torch.cat(wrong)
    return Recall(
        name,
        load,
        count,
        len(error),
        float((error <= recalled).double().mean()),
        float(error.mean()),
        float(torch.cat(rested).mean()),
        certified,
    )


def pattern_sets(count: int, neurons: int, probes: int, seed: int) -> Iterator[tuple[Tensor, int]]:
    """(patterns (count, neurons), number of the set) until enough of them have been shown."""
    generator = torch.Generator().manual_seed(seed)
    for draw in range(math.ceil(probes / min(count, SHOWN))):
        bits = torch.randint(0, 2, (count, neurons), generator=generator)
        yield 2.0 * bits.double() - 1, draw


def theoretical_load(memory: Memory, neurons: int, recalled: float) -> float | None:
    """The load up to which theory says patterns are kept; ``None`` where there is no formula here.

    Hebb: 0.138 (Amit et al. 1985). Pseudo-inverse: 1, beyond which patterns are not independent.
    Order n: one parallel step from the pattern itself gets the share ``recalled`` of bits wrong,
    ½ erfc √(N^(n−1)/(2K(2n−3)!!)) (Krotov & Hopfield 2016). That is easier than retrieval.
    """
    if isinstance(memory, BinaryHopfield | ContinuousHopfield):
        return 0.138 if memory.rule == "hebb" else 1.0
    if isinstance(memory, PolynomialMemory) and recalled > 0:
        odd = math.prod(range(1, 2 * memory.n - 2, 2))
        return float(neurons ** (memory.n - 2) / (2 * odd * erfcinv(2 * recalled) ** 2))
    return None


def write(results: list[Recall], theory: dict[str, float | None], out: Path) -> None:
    """``recall.csv``, a row for each number, and ``recall.png``."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "recall.csv").open("w", newline="") as file:
        rows = csv.DictWriter(file, list(asdict(results[0])))
        rows.writeheader()
        rows.writerows(asdict(result) for result in results)
    curves = {name: [(r.load, r.recalled) for r in results if r.memory == name] for name in theory}
    recall_plot(curves, theory, out / "recall.png")


def table(results: list[Recall], theory: dict[str, float | None], title: str) -> Table:
    """Loads down, memories across: percent recalled."""
    view = Table(title=f"Patterns recalled, percent: {title}")
    view.add_column("load")
    view.add_column("patterns", justify="right")
    for name in theory:
        view.add_column(name, justify="right")
    for load in dict.fromkeys(result.load for result in results):
        row = [result for result in results if result.load == load]
        numbers = [f"{100 * result.recalled:.0f}" for result in row]
        view.add_row(f"{load:g}", str(row[0].patterns), *numbers)
    view.add_section()
    view.add_row("theory", "", *("" if t is None else f"{t:.3g}" for t in theory.values()))
    rose = sum(not result.certified for result in results)
    view.caption = (
        "theory: the load up to which patterns are kept; "
        f"{min(r.at_rest for r in results):.0%} of retrievals or more came to rest; "
        + ("the energy fell at every step" if not rose else f"the energy rose in {rose} cases")
    )
    return view


def main(arguments: list[str] | None = None) -> None:
    parser = ArgumentParser(
        prog="python -m benchmarks.capacity", description=__doc__, exit_on_error=False
    )
    parser.add_argument("--config", action="config", help="A YAML file with the options below.")
    parser.add_function_arguments(capacity, fail_untyped=True)
    with sentences():
        try:
            options = parser.parse_args(arguments)
        except ArgumentError as error:  # several lines of it
            raise UserError(" ".join(str(error).split())) from error
        chosen = parser.instantiate(options).as_dict()
        chosen.pop("config")
        capacity(**chosen)


if __name__ == "__main__":
    main()
