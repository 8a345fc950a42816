"""A backward that must not be differentiated again says so, whatever is asked of it.

``torch.autograd.function.once_differentiable`` raises only under ``.backward()``: its results are
cut off from the inputs, so ``autograd.grad(…, x)`` finds no path to x and is wrong in silence.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor


def applied(function: type[torch.autograd.Function], *inputs: Any) -> Any:
    """The function of the inputs with its own backward where autograd keeps a graph.

    Elsewhere its forward alone, which takes some 50 µs less. So too where a compiler is at work: it
    differentiates that for itself.
    """
    keeps = torch.is_grad_enabled() and not torch.compiler.is_compiling()
    return function.apply(*inputs) if keeps else function.forward(*inputs)


def last_derivative(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates ``backward`` of an autograd function: differentiating its results raises."""

    @wraps(backward)
    def wrapper(ctx: Any, *cotangents: Any) -> Any:
        with torch.no_grad():
            results = backward(ctx, *cotangents)
        if not torch.is_grad_enabled():
            return results
        made_of = (*ctx.saved_tensors, *cotangents)
        inputs = [t for t in made_of if isinstance(t, Tensor) and t.requires_grad]
        single = not isinstance(results, tuple)
        guarded = tuple(
            None if result is None else _Last.apply(result, *inputs)
            for result in ((results,) if single else results)
        )
        return guarded[0] if single else guarded

    return wrapper


class LastDerivative(torch.autograd.Function):
    """An autograd function whose results may not be differentiated: doing so raises."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(
            "a third derivative of a potential was asked for, but its second derivatives are"
            " written out and cannot be differentiated again."
        )


class _Last(LastDerivative):
    generate_vmap_rule = True

    @staticmethod
    def forward(result: Tensor, *inputs: Tensor) -> Tensor:  # type: ignore[override]
        return result.view_as(result)
