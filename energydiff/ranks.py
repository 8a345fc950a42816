"""What the processes of one run tell one another, in the memory of their hosts."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist

from energydiff.errors import UserError

T = TypeVar("T")

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
FOREVER = timedelta(days=1_000)


def rank_count() -> int:
    """How many processes share the work at hand."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first_rank() -> bool:
    """Whether this process is the one that writes and prints."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    # Before the ranks meet, what started this process says which one it is.
    return next((int(os.environ[name]) for name in RANKS if name in os.environ), 0) == 0


@contextmanager
def host_group() -> Iterator[Any]:
    """A process group of all ranks, in which one waits for another as long as it takes.

    The group of training may be NCCL's, which copies what it exchanges to every GPU and ends a
    run in which a rank has waited for half an hour.
    """
    group = dist.new_group(backend="gloo", timeout=FOREVER)
    try:
        yield group
    finally:
        dist.destroy_process_group(group)


def wait_for_all() -> None:
    """Returns when every rank has come here."""
    if rank_count() > 1:
        with host_group() as group:
            dist.barrier(group)


def from_first_rank(work: Callable[[], T]) -> T:
    """What ``work`` returns on the first rank, for all of them, while the others wait.

    Args:
        work: returns something that can be pickled, on the CPU.

    Raises:
        UserError: what ``work`` raised, on every rank.
    """
    if rank_count() == 1:
        return work()
    with host_group() as group:
        told: list[Any] = [None]
        if dist.get_rank() == 0:
            try:
                told = [work()]
            except UserError as error:
                told = [error]
        dist.broadcast_object_list(told, 0, group)
    if isinstance(told[0], UserError):
        raise told[0]
    return told[0]  # type: ignore[no-any-return]
