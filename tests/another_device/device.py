"""A device that is not the CPU, without one: tensors that say ``other:0``, computed on the CPU.

Values are real, so everything runs that depends on them; what a GPU refuses, raises here (operands
on two devices, NumPy); and each point at which the host would wait for the device is noted.
Autograd runs the backward on a thread of its own, as for CUDA. Nothing may be compiled. The
registration is the process's own: it is kept out of the process of other tests.
"""

import threading
import traceback
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

import energydiff

NAME = "other"
PACKAGE = str(Path(energydiff.__file__).parent)
aten = torch.ops.aten


class _Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


_setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
DEVICE = torch.device(NAME, 0)
waits: Counter[tuple[str, str]] = Counter()  # (kind, file:line of the package)
_lock = threading.Lock()
READS = {
    *(aten.nonzero.default, aten.masked_select.default),
    *(aten._linalg_eigh.default, aten.equal.default),
}
INDEXED = {
    *(aten.index.Tensor, aten.index_put.default),
    *(aten.index_put_.default, aten._index_put_impl_.default),
}
MOVES = {aten._to_copy.default: 0, aten.copy_.default: 1}  # which argument is read


class Elsewhere(Tensor):
    """A tensor of the device; ``inner`` is its value on the CPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Elsewhere":
        layout = inner.shape, inner.stride(), inner.storage_offset()
        made: Elsewhere = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, *layout, dtype=inner.dtype, device=DEVICE
        )
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Elsewhere({self.inner})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            new: Any = Elsewhere(self.inner.detach().clone())
            if isinstance(self, torch.nn.Parameter):
                new = torch.nn.Parameter(new, self.requires_grad)
            memo[id(self)] = new
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.inner.detach().__reduce_ex__(protocol)

    def tolist(self) -> Any:
        _note("read")
        return self.inner.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError(f"can't convert a tensor of {DEVICE} to NumPy: copy it to the host first.")

    __array__ = numpy


class _Mode(TorchDispatchMode):
    def __enter__(self) -> Any:
        self.before = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(
            True
        )  # torch.tensor(…, device=…): made here, then moved
        return super().__enter__()

    def __exit__(self, *args: Any) -> None:
        torch._C._set_only_lift_cpu_tensors(self.before)
        super().__exit__(*args)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


@contextmanager
def the_device():  # type: ignore[no-untyped-def]
    """Where ``DEVICE`` can be used; yields what the host waited for since it was entered."""
    waits.clear()
    with _Mode():
        yield waits


def _note(kind: str) -> None:
    lines = [f for f in traceback.extract_stack() if f.filename.startswith(PACKAGE)]
    where = f"{lines[-1].filename[len(PACKAGE) + 1 :]}:{lines[-1].lineno}" if lines else "elsewhere"
    with _lock:
        waits[kind, where] += 1


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    flat, spec = tree_flatten((args, kwargs))
    tensors = [t for t in flat if isinstance(t, Tensor)]
    mine = [t for t in tensors if isinstance(t, Elsewhere)]
    target = kwargs.get("device")
    here = target is not None and torch.device(target).type == NAME
    if not mine and not here:
        return func(*args, **kwargs)
    if func in MOVES:
        source = args[MOVES[func]]
        goes = here if func is aten._to_copy.default else isinstance(args[0], Elsewhere)
        if isinstance(source, Elsewhere) and target is not None and not here:
            _note("read")
            return func(source.inner, **kwargs)
        if func is aten.copy_.default and isinstance(source, Elsewhere) and not goes:
            _note("read")
            return func(args[0], source.inner, *args[2:])
        if goes and not isinstance(source, Elsewhere) and not kwargs.get("non_blocking"):
            _note("write")  # from memory that is not pinned: waits, too
    elif func is aten._local_scalar_dense.default or func in READS:
        _note("read")
    elif func in INDEXED and any(i is not None and i.dtype is torch.bool for i in args[1]):
        if func is aten.index.Tensor or args[2].numel() > 1:
            _note("read")  # how many there are
    elif mine and func not in INDEXED and _has_array(tensors):
        raise RuntimeError(f"operands on two devices, {DEVICE} and cpu, of {func}")
    inside = tree_map_only(Elsewhere, lambda t: t.inner, tree_unflatten(flat, spec))
    kept = {k: v for k, v in inside[1].items() if not (here and k in ("device", "pin_memory"))}
    out = func(*inside[0], **kept)
    known = {id(t.inner): t for t in mine}
    out = tree_map_only(Tensor, lambda t: known[id(t)] if id(t) in known else Elsewhere(t), out)
    return return_and_correct_aliasing(func, args, kwargs, out)


def _has_array(tensors: list[Tensor]) -> bool:
    """Whether some lie on the CPU that are no single numbers, which may."""
    return any(t.ndim for t in tensors if not isinstance(t, Elsewhere))
