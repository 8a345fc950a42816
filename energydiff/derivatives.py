"""Derivatives that do not depend on the mode the caller is in.

``enable_grad`` alone does nothing inside ``inference_mode``, and an inference tensor can take part
in no graph: without these a public sampler would return another field, or nothing, in silence.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """A scope without autocast in which float32 products are float32, whatever the settings are.

    PyTorch's default for convolutions on recent GPUs is TF32, of 10 bits: a certificate of an
    energy computed so would be void.
    """
    switches = _switches()
    try:
        for _, exact, put in switches:
            put(exact)
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for before, _, put in switches:
            put(before)


def _switches() -> list[tuple[Any, Any, Callable[[Any], None]]]:
    """What decides on TF32: its setting now, the exact one, and how to set it."""
    backends: Any = torch.backends
    try:
        matmul = torch.get_float32_matmul_precision()
        cudnn, put = backends.cudnn.allow_tf32, partial(setattr, backends.cudnn, "allow_tf32")
        return [(cudnn, False, put), (matmul, "highest", torch.set_float32_matmul_precision)]
    except RuntimeError:  # the user has chosen by PyTorch's newer settings: they do not mix
        parts = (
            *(backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul),
            *(backends.mkldnn.conv, backends.mkldnn.matmul),
        )
        return [(p.fp32_precision, "ieee", partial(setattr, p, "fp32_precision")) for p in parts]


@contextmanager
def differentiable(device: torch.device, *, graph: bool = True, autocast: bool) -> Iterator[None]:
    """A scope in which derivatives can be taken.

    Args:
        graph: whether gradients are enabled inside.
        autocast: leave precision as the caller has it; otherwise it is full.
    """
    precision = nullcontext() if autocast else full_precision(device)
    with torch.inference_mode(False), torch.set_grad_enabled(graph), precision:
        yield


def ordinary(value: Any) -> Any:
    """A copy of an inference tensor that autograd accepts; anything else as it is.

    To be called inside :func:`differentiable`, where a copy is no inference tensor.
    """
    if isinstance(value, Tensor) and value.is_inference():
        return value.clone()
    return value


def value_and_derivatives(function: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    """function(*inputs), (B,), and the derivative of its sum in each input, like the input.

    A graph through them is kept where gradients are enabled.
    """
    if torch.compiler.is_compiling():  # which follows torch.func alone
        return _by_torch_func(function, *inputs)
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        leaves = [t if keep and t.requires_grad else t.detach().requires_grad_() for t in inputs]
        value = function(*leaves)
        derivatives = torch.autograd.grad(value.sum(), leaves, create_graph=keep)
    return (value if keep else value.detach(), *derivatives)


def _by_torch_func(function: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    def total(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        value = function(*inputs)
        return value.sum(), value

    over_all = torch.func.grad_and_value(total, tuple(range(len(inputs))), has_aux=True)
    derivatives, (_, value) = over_all(*inputs)
    return (value, *derivatives)
