"""silu(GroupNorm(x) · scale + shift) with both derivatives written out, in any memory layout.

Training an energy differentiates its gradient. Autograd decomposes the second derivative of
GroupNorm into hundreds of small products, which is where most of a U-Net's training step went.

With n = r (x − μ) the normalised x (r = 1/std of each group), a = n·g + b, y = silu(a) and its
slope p = silu'(a), the pullback of a cotangent ∂y is

    ∂a = ∂y p,   ∂g = Σ ∂a n,   ∂b = Σ ∂a,   ∂x = r (g ∂a − mean(g ∂b) − n mean(g ∂g))

with means over one group of one sample and sums over one channel: a function of ∂y, x, g, p, μ and
r. Its own pullback returns the cotangents of those, and the forward pass, of which p, μ and r are
outputs beside y, takes them all to x, g and b in one. Everything is a sum of whole maps, each
times one number per channel: no map is made that a pass over another could carry along, and maps
may lie in memory with channels first or last. With s = sigmoid(a),

    p = s + y (1 − s),   silu''(a) = s + p − 2 p s.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from energydiff.potentials.last_derivative import applied, last_derivative

Saved = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, int]


def groupnorm_silu(x: Tensor, scale: Tensor, shift: Tensor, groups: int, eps: float) -> Tensor:
    """silu(GroupNorm(x) · scale + shift) for x (B, C, \\*space), scale and shift (B, C).

    Twice differentiable; a third derivative raises. Half precision is computed in single.
    """
    if torch.is_grad_enabled():
        return groupnorm_silu_saving(x, scale, shift, groups, eps)[0]
    exact = torch.promote_types(x.dtype, torch.float32)
    x_ = x.to(exact)
    mean, r = _statistics(x_, groups, eps)
    a = _affine(x_, scale.to(exact), shift.to(exact), mean, r)
    return F.silu(a, inplace=True).to(x.dtype)


def groupnorm_silu_saving(
    x: Tensor, scale: Tensor, shift: Tensor, groups: int, eps: float
) -> tuple[Tensor, Saved]:
    """:func:`groupnorm_silu`, and what :func:`groupnorm_silu_pullback` needs."""
    exact = torch.promote_types(x.dtype, torch.float32)
    x_, scale, shift = x.to(exact), scale.to(exact), shift.to(exact)
    y, *kept = applied(_GroupNormSiLU, x_, scale, shift, groups, eps)
    return y.to(x.dtype), (x_, scale, *kept, groups)


def groupnorm_silu_pullback(grad: Tensor, saved: Saved) -> tuple[Tensor, Tensor, Tensor]:
    """Cotangents of x (like x), scale and shift (B, C) from that of y; once differentiable."""
    exact = grad.to(saved[0].dtype)
    to_x, to_scale, to_shift = applied(_Pullback, exact, *saved)[:3]
    return to_x.to(grad.dtype), to_scale, to_shift


def _silu_and_slope(a: Tensor) -> tuple[Tensor, Tensor]:
    """y and p, of which y takes a's place in memory."""
    s = a.sigmoid()
    if torch.compiler.is_compiling():  # which differentiates this, and plans memory for itself
        y = a * s
        return y, s + y * (1 - s)
    y = a.mul_(s)
    return y, s.lerp_(s.new_ones(()), y)


def _statistics(x: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor]:
    """μ and r, (B, C)."""
    mean = _group_mean(_sum(x), x, groups)
    variance = _group_mean(_sum((x - _spread(mean, x)).square_()), x, groups)
    return mean, torch.rsqrt(variance + eps)


def _affine(x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, r: Tensor) -> Tensor:
    """a = n g + b."""
    factor = r * scale
    return torch.addcmul(_spread(shift - mean * factor, x), x, _spread(factor, x))


def _to_inputs(
    grad_a: Tensor,
    x: Tensor,
    scale: Tensor,
    mean: Tensor,
    r: Tensor,
    groups: int,
    of_mean: Tensor | None = None,
    of_r: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """∂x, ∂g, ∂b, m₁ = mean(g ∂b) and m₂ = mean(g ∂g) from ∂a; what reaches μ and r by
    themselves joins m₁ and m₂."""
    to_shift = _sum(grad_a)
    to_scale = _sum_normal(grad_a, to_shift, x, mean, r)
    both = scale * torch.stack((to_shift, to_scale))
    if of_mean is not None and of_r is not None:
        both = both + torch.stack((-of_mean / r, of_r * r))
    m1, m2 = _group_mean(both, x, groups)
    along = r * r * m2  # −n r m₂ is −x along and a constant
    to_x = torch.addcmul(_spread(mean * along - r * m1, x), x, _spread(along, x), value=-1)
    return to_x.addcmul_(grad_a, _spread(r * scale, x)), to_scale, to_shift, m1, m2


class _GroupNormSiLU(torch.autograd.Function):
    """(x, g, b) to (y, p, μ, r), the last two (B, C)."""

    @staticmethod
    def forward(  # type: ignore[override]
        x: Tensor, scale: Tensor, shift: Tensor, groups: int, eps: float
    ) -> tuple[Tensor, ...]:
        mean, r = _statistics(x, groups, eps)
        return *_silu_and_slope(_affine(x, scale, shift, mean, r)), mean, r

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, scale, shift, ctx.groups, _ = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, scale, shift, *output[1:])

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, grad: Tensor | None, of_slope: Tensor | None, *of_stats: Tensor | None
    ) -> tuple[Any, ...]:
        if of_slope is not None:  # from a second derivative
            return *_of_all_outputs(ctx, grad, of_slope, *of_stats), None, None
        if grad is None:
            return None, None, None, None, None
        x, scale, _, *kept = ctx.saved_tensors
        return *applied(_Pullback, grad, x, scale, *kept, ctx.groups)[:3], None, None


@last_derivative
def _of_all_outputs(
    ctx: Any, grad: Tensor | None, of_slope: Tensor, of_mean: Tensor, of_r: Tensor
) -> tuple[Tensor, ...]:
    """Cotangents of x, g and b from those of y, p, μ and r."""
    x, scale, shift, slope, mean, r = ctx.saved_tensors
    s = _affine(x, scale, shift, mean, r).sigmoid_()
    grad_a = torch.addcmul(slope, slope, s, value=-2).add_(s).mul_(of_slope)
    if grad is not None:
        grad_a.addcmul_(grad, slope)
    return _to_inputs(grad_a, x, scale, mean, r, ctx.groups, of_mean, of_r)[:3]


class _Pullback(torch.autograd.Function):
    """(∂y, x, g, p, μ, r) to (∂x, ∂g, ∂b)."""

    @staticmethod
    def forward(  # type: ignore[override]
        grad: Tensor, x: Tensor, scale: Tensor, slope: Tensor, mean: Tensor, r: Tensor, groups: int
    ) -> tuple[Tensor, ...]:
        return _to_inputs(grad * slope, x, scale, mean, r, groups)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.groups = inputs
        ctx.mark_non_differentiable(*output[3:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *output[1:])

    @staticmethod
    @last_derivative
    def backward(  # type: ignore[override]
        ctx: Any, v: Tensor | None, v_scale: Tensor | None, v_shift: Tensor | None, *_: Any
    ) -> tuple[Tensor | None, ...]:
        """Cotangents (v, v_scale, v_shift) of (∂x, ∂g, ∂b) to those of what they are made of."""
        grad, x, scale, slope, mean, r, to_scale, to_shift, m1, m2 = ctx.saved_tensors
        v = torch.zeros_like(x) if v is None else v
        nothing = torch.zeros_like(scale)
        v_scale = nothing if v_scale is None else v_scale
        v_shift = nothing if v_shift is None else v_shift
        sum_v = _sum(v)
        sum_vn = _sum_normal(v, sum_v, x, mean, r)
        v1, v2 = _group_mean(torch.stack((sum_v, sum_vn)), x, ctx.groups)
        # What reaches ∂g, also through m₂, and with it ∂a.
        on_scale = v_scale - r * v2 * scale
        rate = r * on_scale
        constant = v_shift - r * v1 * scale - mean * rate
        on_a = torch.addcmul(_spread(constant, x), v, _spread(r * scale, x))
        on_a.addcmul_(x, _spread(rate, x))
        to_slope = grad * on_a
        to_grad = on_a.mul_(slope)
        grad_a = grad * slope
        sum_va = _sum(grad_a * v)
        along = r * r * m2
        to_x = grad_a.mul_(_spread(rate, x)).addcmul_(v, _spread(along, x), value=-1)
        return (
            to_grad,
            to_x,
            r * (sum_va - v1 * to_shift - v2 * to_scale),
            to_slope,
            along * sum_v - rate * to_shift,
            scale * sum_va - m1 * sum_v - 2 * m2 * sum_vn + on_scale * to_scale / r,
            None,
        )


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
    """The mean over each group from the sums over its channels, at each of them, (…, B, C)."""
    split = per_channel.unflatten(-1, (groups, -1))
    count = split.shape[-1] * math.prod(x.shape[2:])
    return (split.sum(-1, keepdim=True).expand_as(split) / count).flatten(-2)
