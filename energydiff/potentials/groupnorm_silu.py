"""silu(GroupNorm(x) · scale + shift) with both derivatives written out, in any memory layout.

Training an energy differentiates its gradient. Autograd decomposes the second derivative of
GroupNorm into hundreds of small products, which is where most of a U-Net's training step went.

With n = r (x − μ) the normalised x (r = 1/std of each group), a = n·g + b and y = silu(a), the
pullback of a cotangent ∂y is

    ∂a = ∂y silu'(a),   ∂x = P(∂a·g),   P(h) = r (h − mean(h) − n mean(h n)),
    ∂g = Σ ∂a n,        ∂b = Σ ∂a

with means over one group of one sample and sums over one channel. P is symmetric, so the pullback
of the pullback applies P again and differentiates r and n. Everything is a sum of whole maps, each
times one number per channel: no map is made that a pass over another could carry along, and maps
may lie in memory with channels first or last. With s = sigmoid(a), silu' = s + a s (1 − s) and
silu'' = s (1 − s) (2 + a (1 − 2 s)).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from energydiff.potentials.last_derivative import last_derivative

Saved = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, int]


def groupnorm_silu(x: Tensor, scale: Tensor, shift: Tensor, groups: int, eps: float) -> Tensor:
    """silu(GroupNorm(x) · scale + shift) for x (B, C, \\*space), scale and shift (B, C).

    Twice differentiable; a third derivative raises. Half precision is computed in single.
    """
    return groupnorm_silu_saving(x, scale, shift, groups, eps)[0]


def groupnorm_silu_saving(
    x: Tensor, scale: Tensor, shift: Tensor, groups: int, eps: float
) -> tuple[Tensor, Saved]:
    """:func:`groupnorm_silu`, and what :func:`groupnorm_silu_pullback` needs."""
    exact = torch.promote_types(x.dtype, torch.float32)
    x_, scale, shift = x.to(exact), scale.to(exact), shift.to(exact)
    apply = _forward if torch.compiler.is_compiling() else _GroupNormSiLU.apply
    y, a, mean, r = apply(x_, scale, shift, groups, eps)
    return y.to(x.dtype), (x_, scale, shift, a, mean, r, groups)


def groupnorm_silu_pullback(grad: Tensor, saved: Saved) -> tuple[Tensor, Tensor, Tensor]:
    """Cotangents of x (like x), scale and shift (B, C) from that of y; once differentiable."""
    exact = grad.to(saved[0].dtype)
    apply = _pullback if torch.compiler.is_compiling() else _Pullback.apply
    to_x, to_scale, to_shift = apply(exact, *saved)[:3]
    return to_x.to(grad.dtype), to_scale, to_shift


def _forward(
    x: Tensor, scale: Tensor, shift: Tensor, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, a, μ and r, the last two (B, C)."""
    mean = _group_mean(_sum(x), x, groups)
    centred = x - _spread(mean, x)
    r = torch.rsqrt(_group_mean(_sum(centred * centred), x, groups) + eps)
    a = torch.addcmul(_spread(shift, x), centred, _spread(r * scale, x))
    return F.silu(a), a, mean, r


def _pullback(
    grad: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    a: Tensor,
    mean: Tensor,
    r: Tensor,
    groups: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """∂x, ∂g, ∂b, and ∂a."""
    grad_a = _silu_pullback(grad, a)
    to_shift = _sum(grad_a)
    to_scale = _sum_normal(grad_a, to_shift, x, mean, r)
    m1 = _group_mean(scale * to_shift, x, groups)
    m2 = _group_mean(scale * to_scale, x, groups)
    # −n r m2 is −x r² m2 and a constant.
    constant = r * (r * mean * m2 - m1)
    to_x = torch.addcmul(_spread(constant, x), x, _spread(-r * r * m2, x))
    return to_x.addcmul_(grad_a, _spread(r * scale, x)), to_scale, to_shift, grad_a


class _GroupNormSiLU(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        x: Tensor, scale: Tensor, shift: Tensor, groups: int, eps: float
    ) -> tuple[Tensor, ...]:
        return _forward(x, scale, shift, groups, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, scale, shift, ctx.groups, _ = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, scale, shift, *output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        if grad is None:
            return None, None, None, None, None
        return *_Pullback.apply(grad, *ctx.saved_tensors, ctx.groups)[:3], None, None


class _Pullback(torch.autograd.Function):
    """(∂y, x, g, b) to (∂x, ∂g, ∂b); the others come along from the forward pass."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:  # type: ignore[override]
        return _pullback(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        grad, x, scale, _, a, mean, r, ctx.groups = inputs
        _, to_scale, to_shift, grad_a = output
        ctx.mark_non_differentiable(grad_a)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(grad, x, scale, a, mean, r, to_scale, to_shift, grad_a)

    @staticmethod
    @last_derivative
    def backward(  # type: ignore[override]
        ctx: Any, v: Tensor | None, v_scale: Tensor | None, v_shift: Tensor | None, *_: Any
    ) -> tuple[Tensor | None, ...]:
        """Cotangents (v, v_scale, v_shift) of (∂x, ∂g, ∂b) to those of (∂y, x, g, b)."""
        grad, x, scale, a, mean, r, to_scale, to_shift, grad_a = ctx.saved_tensors
        v = torch.zeros_like(x) if v is None else v
        nothing = torch.zeros_like(scale)
        v_scale = nothing if v_scale is None else v_scale
        v_shift = nothing if v_shift is None else v_shift

        def group_mean(per_channel: Tensor) -> Tensor:
            return _group_mean(per_channel, x, ctx.groups)

        def combined(constant: Tensor, *terms: tuple[Tensor, Tensor]) -> Tensor:
            """A constant and maps, each times a number per channel."""
            (first, factor), *others = terms
            out = torch.addcmul(_spread(constant, x), first, _spread(factor, x))
            for term, factor in others:
                out.addcmul_(term, _spread(factor, x))
            return out

        # q = P(v) = r (v − v1 − n v2), and t = q g + n v_scale + v_shift the cotangent of ∂a.
        sum_v = _sum(v)
        v1, v2 = group_mean(sum_v), group_mean(_sum_normal(v, sum_v, x, mean, r))
        on_n = v_scale - r * v2 * scale
        t = combined(v_shift - r * v1 * scale - r * mean * on_n, (v, r * scale), (x, r * on_n))
        # silu'' carries t to a, and from there to x, g and b.
        s = a.sigmoid()
        curved = torch.ops.aten.sigmoid_backward(grad * t, s)
        curved = curved.mul_(torch.addcmul(a, a, s, value=-2).add_(2))
        to_grad = _silu_pullback(t, a)
        sum_curved = _sum(curved)
        sum_curved_n = _sum_normal(curved, sum_curved, x, mean, r)
        # g stands in h = ∂a g as well: Σ ∂a q.
        through_q = r * (_sum(grad_a * v) - v1 * to_shift - v2 * to_scale)
        # P differentiated through n and r, and Σ ∂a n through n: again sums of maps.
        m1, m2 = group_mean(scale * to_shift), group_mean(scale * to_scale)
        w1 = group_mean(scale * sum_curved + v_scale * to_shift)
        w2 = group_mean(scale * sum_curved_n + v_scale * to_scale)
        on_n = -r * (w2 + group_mean(scale * through_q) - 2 * r * v2 * m2)
        constant = -r * w1 + r * r * (v2 * m1 + m2 * v1) - r * mean * on_n
        to_x = combined(
            constant,
            (x, r * on_n),
            (curved, r * scale),
            (grad_a, r * (v_scale - r * v2 * scale)),
            (v, -r * r * m2),
        )
        return to_grad, to_x, sum_curved_n + through_q, sum_curved, *[None] * 4


def _silu_pullback(grad: Tensor, a: Tensor) -> Tensor:
    """∂y silu'(a)."""
    if torch.compiler.is_compiling():  # PyTorch's own has no derivative
        s = a.sigmoid()
        return grad * (s + a * s * (1 - s))
    return torch.ops.aten.silu_backward(grad, a)


def _spread(per_channel: Tensor, x: Tensor) -> Tensor:
    """(B, C) to be multiplied with x."""
    return per_channel.view(*per_channel.shape, *[1] * (x.ndim - 2))


def _sum(x: Tensor) -> Tensor:
    """Over space, (B, C)."""
    return x.sum(tuple(range(2, x.ndim)))


def _sum_normal(x: Tensor, sum_x: Tensor, of: Tensor, mean: Tensor, r: Tensor) -> Tensor:
    """Σ x n over space, (B, C), for n = r (of − mean)."""
    return r * (_sum(x * of) - mean * sum_x)


def _group_mean(per_channel: Tensor, x: Tensor, groups: int) -> Tensor:
    """The mean over each group from the sums over its channels, at each of them, (B, C)."""
    of_groups = per_channel.unflatten(1, (groups, -1)).sum(2, keepdim=True)
    width = per_channel.shape[1] // groups
    count = width * x[0, 0].numel()
    return (of_groups / count).expand(-1, -1, width).flatten(1)
