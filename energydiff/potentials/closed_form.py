"""GELU, layer normalisation and attention with their double backwards written out.

Training an energy differentiates its gradient. Autograd decomposes the second derivative of these
three into dozens of passes over the activations, which is where most of a transformer's training
step went. Written out:

    GELU         y = xΦ(x), y' = Φ(x) + xφ(x), y'' = φ(x)(2 − x²)
    layer norm   n = r(h − mean h),  ∂h = P(∂n) = r (∂n − mean(∂n) − n mean(∂n n)), P symmetric
    attention    A = softmax(QKᵀ),  Y = AV,  ∂A = ∂Y Vᵀ,  ∂S = A∘(∂A − rowsum(∂A∘A))

so each second derivative applies the first once more and differentiates what it was made of. All
are twice differentiable; a third derivative raises. Means are over the last axis.
"""

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from energydiff.potentials.last_derivative import applied, last_derivative

aten = torch.ops.aten


def gelu(x: Tensor) -> Tensor:
    """xΦ(x), elementwise."""
    return applied(_GELU, x)


def normalise(h: Tensor, eps: float = 1e-5) -> Tensor:
    """Layer norm over the last axis, without scale and shift; in float32 under autocast."""
    if torch.compiler.is_compiling():
        return F.layer_norm(h, h.shape[-1:], eps=eps)
    if torch.is_autocast_enabled(h.device.type):
        h = h.float()
    return applied(_Normalise, h.contiguous(), eps)[0]


Attended = tuple[Tensor, Tensor, Tensor, Tensor]  # Q = q/√d, K, V and A


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(qkᵀ/√d) v over (…, tokens, d); fused kernels have no second derivative."""
    return attend_saving(q, k, v)[0]


def attend_saving(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Attended]:
    """:func:`attend`, and what :func:`attend_pullback` needs."""
    q, k, v = q.contiguous() * q.shape[-1] ** -0.5, k.contiguous(), v.contiguous()
    y, a = applied(_Attend, q, k, v)
    return y, (q, k, v, a)


def attend_pullback(grad: Tensor, saved: Attended) -> tuple[Tensor, Tensor, Tensor]:
    """Cotangents of q, k and v from that of the result; once differentiable."""
    to_q, to_k, to_v, *_ = applied(_AttendBackward, grad, *saved)
    return to_q * to_q.shape[-1] ** -0.5, to_k, to_v


def _one_precision(function: Callable[..., Any]) -> Callable[..., Any]:
    """Products stay in the precision of their inputs, in the same way in every pass."""

    @wraps(function)
    def wrapped(first: Any, *args: Any) -> Any:
        # Activation checkpointing lets what is saved be asked for once.
        given = [t for t in (first, *args) if isinstance(t, Tensor)] or first.saved_tensors
        with torch.autocast(given[0].device.type, enabled=False):
            return function(first, *args)

    return wrapped


class _GELU(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:  # type: ignore[override]
        return F.gelu(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return applied(_GELUBackward, grad, *ctx.saved_tensors)


class _GELUBackward(torch.autograd.Function):
    @staticmethod
    def forward(grad: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
        return aten.gelu_backward(grad, x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @last_derivative
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        grad, x = ctx.saved_tensors
        square = x.square()
        density = square.mul(-0.5).exp_()
        curvature = square.neg_().add_(2).mul_(density)
        to_x = curvature.mul_(grad).mul_(v).mul_((2 * math.pi) ** -0.5)
        return aten.gelu_backward(v, x), to_x


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(h: Tensor, eps: float) -> tuple[Tensor, ...]:  # type: ignore[override]
        return aten.native_layer_norm(h, h.shape[-1:], None, None, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)  # or mean and r get cotangents of zeros
        ctx.save_for_backward(inputs[0], *output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, None]:  # type: ignore[override]
        if grad is None:
            return None, None
        return applied(_NormaliseBackward, grad, *ctx.saved_tensors), None


class _NormaliseBackward(torch.autograd.Function):
    """(∂n, h) to ∂h = P(∂n); n, mean and r come along from the forward pass."""

    @staticmethod
    def forward(grad: Tensor, h: Tensor, n: Tensor, mean: Tensor, r: Tensor) -> Tensor:  # type: ignore[override]
        return _project(grad, h, mean, r)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    @last_derivative
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        grad, h, n, mean, r, grad_h = ctx.saved_tensors
        q = _project(v, h, mean, r)
        scale = -r / h.shape[-1]
        to_h = grad_h * ((v * n).sum(-1, keepdim=True) * scale)
        to_h.addcmul_(q, (grad * n).sum(-1, keepdim=True) * scale)
        to_h.addcmul_(n, (grad * q).sum(-1, keepdim=True) * scale)
        return q, to_h, None, None, None


def _project(grad: Tensor, h: Tensor, mean: Tensor, r: Tensor) -> Tensor:
    mask = (True, False, False)
    grad = grad.contiguous()
    return aten.native_layer_norm_backward(grad, h, h.shape[-1:], mean, r, None, None, mask)[0]


class _Attend(torch.autograd.Function):
    """(Q, K, V) to Y and A."""

    @staticmethod
    @_one_precision
    def forward(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        a = torch.softmax(q @ k.mT, dim=-1)
        return a @ v, a

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.set_materialize_grads(False)  # or A gets a cotangent of N × N zeros
        ctx.save_for_backward(*inputs, output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, of_a: Tensor | None) -> tuple[Any, ...]:  # type: ignore[override]
        if of_a is not None:  # from a second derivative
            return _of_output_and_weights(ctx, grad, of_a)
        if grad is None:
            return None, None, None
        return applied(_AttendBackward, grad, *ctx.saved_tensors)[:3]


@last_derivative
@_one_precision
def _of_output_and_weights(ctx: Any, grad: Tensor | None, of_a: Tensor) -> tuple[Tensor, ...]:
    """Cotangents of Q, K and V from those of Y and A."""
    q, k, v, a = ctx.saved_tensors
    grad = torch.zeros_like(a @ v) if grad is None else grad
    return _attend_backward(grad, q, k, v, a, (grad @ v.mT).add_(of_a))[:3]


def _attend_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, a: Tensor, grad_a: Tensor
) -> tuple[Tensor, ...]:
    """∂Q, ∂K, ∂V and ∂S."""
    grad_s = aten._softmax_backward_data(grad_a, a, -1, a.dtype)
    return grad_s @ k, grad_s.mT @ q, a.mT @ grad, grad_s


class _AttendBackward(torch.autograd.Function):
    """(∂Y, Q, K, V, A) to (∂Q, ∂K, ∂V)."""

    @staticmethod
    @_one_precision
    def forward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, a: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        grad_a = grad @ v.mT
        return *_attend_backward(grad, q, k, v, a, grad_a), grad_a

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[3:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, *output[3:])

    @staticmethod
    @last_derivative
    @_one_precision
    def backward(  # type: ignore[override]
        ctx: Any, to_q: Tensor | None, to_k: Tensor | None, to_v: Tensor | None, *_: Any
    ) -> Any:
        """Cotangents of (∂Q, ∂K, ∂V) to those of (∂Y, Q, K, V, A)."""
        grad, q, k, v, a, grad_s, grad_a = ctx.saved_tensors
        to_q = torch.zeros_like(q) if to_q is None else to_q
        to_k = torch.zeros_like(k) if to_k is None else to_k
        to_v = torch.zeros_like(v) if to_v is None else to_v

        # t is the cotangent of ∂S, w that of ∂A.
        t = (to_q @ k.mT).add_(q @ to_k.mT)
        row = (t * a).sum(-1, keepdim=True)
        w = aten._softmax_backward_data(t, a, -1, a.dtype)

        # A stands in ∂V = Aᵀ∂Y and in both places in ∂S.
        of_a = grad @ to_v.mT
        of_a.addcmul_(t, grad_a - (grad_a * a).sum(-1, keepdim=True))
        of_a.addcmul_(grad_a, row, value=-1)
        return (
            (w @ v).add_(a @ to_v),
            grad_s @ to_k,
            grad_s.mT @ to_q,
            w.mT @ grad,
            of_a,
        )
