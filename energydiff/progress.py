"""Progress of a long piece of work, told on standard error by the first rank."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from energydiff.ranks import is_first_rank

T = TypeVar("T")

BAR_SECONDS = 1.0
LINE_SECONDS = 10.0


@contextmanager
def progress(task: str, total: int) -> Iterator[Callable[[int], None]]:
    """Hands out a function to call with the number done; work that ends within a second is quiet.

    On a terminal a bar is redrawn every second; elsewhere a line is printed every ten.
    task: what is being done, as in "Checking images".
    """
    console = Console(stderr=True)
    period = BAR_SECONDS if console.is_terminal else LINE_SECONDS
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    bar = Progress(*columns, console=console, transient=True)
    bar_task = bar.add_task(task, total=total)
    told, first = time.monotonic(), is_first_rank()

    def tell(done: int) -> None:
        nonlocal told
        if not first or time.monotonic() - told < period:
            return
        told = time.monotonic()
        if console.is_terminal:
            bar.start()
            bar.update(bar_task, completed=done)
        else:
            print(f"{task}: {done:,} of {total:,}", file=sys.stderr, flush=True)

    try:
        yield tell
    finally:
        if bar.live.is_started:
            bar.stop()


def with_progress(items: Iterable[T], total: int, task: str) -> Iterator[T]:
    """Hands the items on and tells how many are done."""
    with progress(task, total) as tell:
        for done, item in enumerate(items, 1):
            yield item
            tell(done)
