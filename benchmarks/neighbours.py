"""What it costs to find the nearest training images: time and peak memory.

    python -m benchmarks.neighbours [--queries 20000] [--others 50000] [--shape 3 32 32]

Noise in place of images, uint8 as a source hands them out; each case in a process of its own, so
that its peak is its own. Processor time of one thread, and what is resident at most.
"""

import argparse
import multiprocessing
import resource
import time

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from energydiff.data import Normalization
from energydiff.data.source import ArraySource, index_names
from energydiff.evaluation.neighbours import nearest_neighbours

Shape = tuple[int, ...]


def case(queries: int, others: int, shape: Shape, seed: int = 0) -> tuple[float, float, float]:
    """Seconds, peak GiB in all, and GiB of the queries and the data."""
    torch.set_num_threads(1)
    generator = np.random.default_rng(seed)
    data = generator.integers(0, 256, (others, *shape), np.uint8)
    source = ArraySource(data, Normalization(0, 255), index_names(others))
    samples = torch.from_numpy(generator.standard_normal((queries, *shape), np.float32))
    begun = time.process_time()
    found = nearest_neighbours(samples, source)
    seconds = time.process_time() - begun
    assert bool((found.index >= 0).all())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return seconds, peak, (data.nbytes + 4 * samples.numel()) / 2**30


def main() -> None:
    """Measure a few sizes up to those asked for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=20_000)
    parser.add_argument("--others", type=int, default=50_000)
    parser.add_argument("--shape", type=int, nargs="+", default=[3, 32, 32])
    options = parser.parse_args()
    shape = tuple(options.shape)
    table = Table(title=f"two nearest, {' × '.join(map(str, shape))}, one thread")
    for column in ("queries", "among", "processor seconds", "peak GiB", "of it data GiB"):
        table.add_column(column)
    for part in (16, 4, 1):
        size = (options.queries // part, options.others // part)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, peak, data = pool.apply(case, (*size, shape))
        table.add_row(*map("{:,}".format, size), f"{seconds:.1f}", f"{peak:.2f}", f"{data:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
