"""Reading all of an array once, which may exceed the memory, a piece at a time."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from energydiff.progress import with_progress

Array = NDArray[Any]
SCAN_BYTES = 2**24


def extremes(values: Array) -> tuple[Array, Array]:
    """The smallest and the largest value of every sample, each (N,) float32."""
    lowest, highest = np.empty((2, len(values)), np.float32)
    for part in _parts(values, len(values), "Reading the range of the data (parts)"):
        with np.errstate(over="ignore"):  # an overflow to infinity is reported by the caller
            chunk = values[part].reshape(len(values[part]), -1).astype(np.float32)
        lowest[part], highest[part] = chunk.min(axis=1), chunk.max(axis=1)
    return lowest, highest


def channel_moments(values: Array, rows: NDArray[np.int64]) -> tuple[Array, Array]:
    """Mean and standard deviation of each channel of rows of (N, C, H, W), each (C,) float64.

    Parts are joined by the formula of Chan, Golub and LeVeque (1983), which sums no squares of
    values far from zero.
    """
    count, mean, squares = 0, np.zeros(values.shape[1]), np.zeros(values.shape[1])
    for part in _parts(values, len(rows), "Measuring the channels of the data (parts)"):
        chunk = values[rows[part]].astype(np.float64)
        own = chunk.mean(axis=(0, 2, 3))
        more = chunk[:, 0].size
        apart = own - mean
        mean += apart * more / (count + more)
        squares += chunk.var(axis=(0, 2, 3)) * more + apart**2 * count * more / (count + more)
        count += more
    return mean, np.sqrt(squares / count)


def _parts(values: Array, count: int, task: str) -> Iterator[slice]:
    rows = max(1, SCAN_BYTES // values[0].nbytes)
    starts = range(0, count, rows)
    for start in with_progress(starts, len(starts), task):
        yield slice(start, start + rows)
