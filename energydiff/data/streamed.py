"""Rows of Parquet files read from front to back by Hugging Face's ``datasets``, in streaming mode.

Such a stream has no random access, so rows are kept for as long as a window of the training order
(``Locality``) may ask for them, and one that is asked for too late is read again. Nothing is
converted or copied, and what a process holds is bounded.
"""

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from energydiff.extras import import_extra

BATCH = 64  # rows from the library at a time


class Cursor:
    """One file, from a row on: the rows that were read and are still kept, by number."""

    def __init__(self, stream: Any, column: str, first: int) -> None:
        self.rows: dict[int, Any] = {}
        self.next = self.first = first
        self._values = self._read(stream.skip(first), column)

    def _read(self, stream: Any, column: str) -> Iterator[Any]:
        # As batches of Arrow, the library does not share rows out among the workers of a loader.
        for table in stream.with_format("arrow").iter(BATCH):
            yield from table[column].to_pylist()

    def read(self, row: int, keep: int) -> Any:
        """The row, once all before it have been read; only so many of the last ones are kept."""
        while self.next <= row:
            self.rows[self.next] = next(self._values)
            self.rows.pop(self.next - keep, None)
            self.next += 1
            self.first = max(self.first, self.next - keep)
        return self.rows[row]


class StreamedRows:
    """Items of one column of encoded images: {column: bytes, or {"bytes": …, "path": …}}.

    files: Parquet files, in order. window: of the locality of their rows.
    """

    def __init__(self, files: Sequence[Path], column: str, window: int) -> None:
        parquet = import_extra("pyarrow.parquet", "datasets")
        datasets = import_extra("datasets", "datasets")
        self.counts = [parquet.read_metadata(file).num_rows for file in files]
        self.streams = [
            datasets.load_dataset(
                "parquet", data_files=[str(file)], split="train", streaming=True, columns=[column]
            )
            for file in files
        ]
        self._starts = list(accumulate(self.counts, initial=0))
        self._column = column
        # Held-out rows lie among those of a window, and its first request may be for its last row.
        self._keep = 2 * window
        self._process, self._cursors = os.getpid(), dict[int, Cursor]()

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, row: int) -> Any:
        number = bisect_right(self._starts, row) - 1
        place = row - self._starts[number]
        try:
            return {self._column: self._cursor(number, place).read(place, self._keep)}
        except Exception as error:  # damaged files can raise anything
            raise OSError(str(error) or "its file has become shorter") from error

    def _cursor(self, number: int, place: int) -> Cursor:
        """That of a file, with room for the rows before the place that may be asked for next."""
        if self._process != os.getpid():  # an open file is for one process
            self._process, self._cursors = os.getpid(), {}
        cursor = self._cursors.pop(number, None)
        if cursor is None or place < cursor.first:
            first = max(0, place - self._keep)
            cursor = Cursor(self.streams[number], self._column, first)
        self._cursors[number] = cursor  # as the one used last
        while sum(len(each.rows) for each in self._cursors.values()) > 2 * self._keep:
            del self._cursors[next(iter(self._cursors))]
        return cursor

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cursors": {}}
