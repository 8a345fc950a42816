"""Arrays of ``.npz`` and ``.npy`` files that need not fit in memory, some rows at a time."""

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
from numpy.typing import NDArray

from energydiff.files import whole

Array = NDArray[Any]


def write_rows(file: Path, rows: int, arrays: Mapping[str, Iterator[Array]]) -> None:
    """Arrays by name, each in pieces along its first axis of ``rows``, as ``np.savez_compressed``
    would write them: whole or not at all, and the same bytes for the same numbers."""
    with whole(file) as partial, ZipFile(partial, "w", ZIP_DEFLATED) as archive:
        for name, pieces in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                write_array(member, rows, pieces)


def write_array(stream: IO[bytes], rows: int, pieces: Iterable[Array]) -> None:
    """An array in pieces along its first axis of ``rows``, as ``np.save`` would write it."""
    for number, piece in enumerate(pieces):
        if number == 0:
            described = np.lib.format.header_data_from_array_1_0(piece)
            shape = {"shape": (rows, *piece.shape[1:]), "fortran_order": False}
            np.lib.format.write_array_header_1_0(stream, described | shape)
        stream.write(piece.tobytes())


def read_rows(file: Path, name: str, rows: int) -> Iterator[Array]:
    """An array of a file that :func:`write_rows` wrote, so many rows at a time.

    Raises:
        OSError, KeyError, ValueError, EOFError, BadZipFile: it is no such file.
    """
    with ZipFile(file) as archive, archive.open(f"{name}.npy") as member:
        np.lib.format.read_magic(member)
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        size = math.prod(shape[1:])
        for start in range(0, shape[0], rows):
            count = min(rows, shape[0] - start)
            content = member.read(count * size * dtype.itemsize)
            yield np.frombuffer(content, dtype).reshape(count, *shape[1:]).copy()
