"""Operation counts, peak memory and interleaved timings of functions without arguments."""

import statistics
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

Work = Callable[[], object]

aten = torch.ops.aten
FORMULAS = flop_registry | {  # PyTorch counts these on a GPU alone
    aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[
        aten._scaled_dot_product_flash_attention
    ],
    aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        aten._scaled_dot_product_flash_attention_backward
    ],
}


@dataclass(frozen=True)
class Ratio:
    """Median and quartiles of ratios taken round by round."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Timing:
    """Seconds that one contestant took in each round."""

    rounds: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """The median."""
        return statistics.median(self.rounds)

    def over(self, reference: "Timing") -> Ratio:
        """The ratio to another contestant of the same rounds."""
        ratios = [a / b for a, b in zip(self.rounds, reference.rounds, strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        return Ratio(median, low, high)


def timings(contestants: Mapping[str, Work], rounds: int, device: str) -> dict[str, Timing]:
    """Interleaved rounds, after two that are not timed.

    On a CPU these are processor seconds, which neighbours on the same machine disturb least; on a
    GPU they are wall-clock seconds, synchronised.
    """
    for work in contestants.values():
        work()
        work()
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, work in contestants.items():
            start = _clock(device)
            work()
            taken[name].append(_clock(device) - start)
    return {name: Timing(tuple(seconds)) for name, seconds in taken.items()}


def _clock(device: str) -> float:
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def operations(work: Work) -> int:
    """Floating-point operations of matrix products and convolutions, forward and backward.

    Counted at dispatch, because a counter that hooks modules fails on a model that differentiates
    inside its forward pass.
    """
    with _Operations() as counter:
        work()
    return counter.total


def peak_bytes(work: Work, device: str) -> int:
    """Most bytes of tensors made by ``work`` that were alive at once.

    What existed before (weights, optimizer state, data) does not count. On a CPU scratch memory
    inside a kernel is not seen; on a GPU the allocator's own peak is read.
    """
    work()
    if device == "cpu":
        with _LiveBytes() as memory:
            work()
        return memory.peak
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    return torch.cuda.max_memory_allocated() - before


class _Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = FORMULAS.get(func.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


class _LiveBytes(TorchDispatchMode):
    """Follows every storage an operation returns until it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if _is_tensor(t)}
        out = func(*args, **(kwargs or {}))
        for tensor in filter(_is_tensor, tree_leaves(out)):
            storage = tensor.untyped_storage()
            if id(storage) in given or id(storage) in self._seen:
                continue  # a view, or an operation in place
            self._seen.add(id(storage))
            self.live += storage.nbytes()
            weakref.finalize(storage, self._freed, id(storage), storage.nbytes())
        self.peak = max(self.peak, self.live)
        return out

    def _freed(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)
