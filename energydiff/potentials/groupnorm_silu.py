"""silu(GroupNorm(x) · scale + shift) with a double backward written out.

Training an energy differentiates its gradient. Autograd decomposes the second derivative of
GroupNorm into hundreds of small products, which is where most of a U-Net's training step went;
written out it needs three more calls of the fused first backward.

With n the normalised x (r = 1/std of each group), a = n·g + b and y = silu(a), the gradient is

    ∂x = P(h),  h = ∂a·g,   P(h) = r (h − mean(h) − n mean(h n)),   ∂a = ∂y silu'(a)

P is symmetric, so the double backward applies P again to the incoming cotangent and
differentiates r and n. Means are over one group of one sample.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from energydiff.potentials.last_derivative import last_derivative

aten = torch.ops.aten


def groupnorm_silu(x: Tensor, scale: Tensor, shift: Tensor, groups: int, eps: float) -> Tensor:
    """silu(GroupNorm(x) · scale + shift) for x (B, C, \\*space), scale and shift (B, C).

    Twice differentiable; a third derivative raises.
    """
    if torch.compiler.is_compiling():  # the compiler fuses the plain form itself
        space = [1] * (x.ndim - 2)
        normal = F.group_norm(x, groups, eps=eps)
        return F.silu(normal * scale.view(*scale.shape, *space) + shift.view(*shift.shape, *space))
    return _GroupNormSiLU.apply(x.contiguous(), scale, shift, groups, eps)[0]


def groupnorm_silu_saving(
    x: Tensor, scale: Tensor, shift: Tensor, groups: int, eps: float
) -> tuple[Tensor, tuple[Any, ...]]:
    """:func:`groupnorm_silu`, and what its pullback needs."""
    x = x.contiguous()
    y, a, mean, rstd = _GroupNormSiLU.apply(x, scale, shift, groups, eps)
    return y, (x, scale, shift, a, mean, rstd, groups)


def groupnorm_silu_pullback(grad: Tensor, saved: tuple[Any, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Cotangents of x (like x), scale and shift (B, C) from that of y; once differentiable."""
    to_x, to_scale, to_shift, _ = _GroupNormSiLUBackward.apply(grad.contiguous(), *saved)
    return to_x, to_scale, to_shift


class _GroupNormSiLU(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        x: Tensor, scale: Tensor, shift: Tensor, groups: int, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        batch, channels = x.shape[:2]
        # Each sample has its own scale, so samples become channels of one long sample.
        a, mean, rstd = aten.native_group_norm(
            x.view(1, batch * channels, -1),
            scale.reshape(-1),
            shift.reshape(-1),
            1,
            batch * channels,
            x[0, 0].numel(),
            batch * groups,
            eps,
        )
        a = a.view_as(x)
        return F.silu(a), a, mean, rstd

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, scale, shift, ctx.groups, _ = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(x, scale, shift, *output[1:])

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor, *_: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, scale, shift, a, mean, rstd = ctx.saved_tensors
        grad_x, grad_scale, grad_shift, _ = _GroupNormSiLUBackward.apply(
            grad_y.contiguous(), x, scale, shift, a, mean, rstd, ctx.groups
        )
        return grad_x, grad_scale, grad_shift, None, None


class _GroupNormSiLUBackward(torch.autograd.Function):
    """(∂y, x, g, b) to (∂x, ∂g, ∂b); a, mean and rstd come along from the forward pass."""

    @staticmethod
    def forward(  # type: ignore[override]
        grad_y: Tensor,
        x: Tensor,
        scale: Tensor,
        shift: Tensor,
        a: Tensor,
        mean: Tensor,
        rstd: Tensor,
        groups: int,
    ) -> tuple[Tensor, ...]:
        grad_a = aten.silu_backward(grad_y, a)
        grad_x, grad_scale, grad_shift = _normalise_backward(grad_a, x, scale, mean, rstd, groups)
        return grad_x, grad_scale, grad_shift, grad_a

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        grad_y, x, scale, _, a, mean, rstd, ctx.groups = inputs
        grad_x, grad_scale, _, grad_a = output
        ctx.mark_non_differentiable(grad_a)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(grad_y, x, scale, a, mean, rstd, grad_x, grad_scale, grad_a)

    @staticmethod
    @last_derivative
    def backward(  # type: ignore[override]
        ctx: Any, v: Tensor | None, v_scale: Tensor | None, v_shift: Tensor | None, _: Any
    ) -> tuple[Tensor | None, ...]:
        """Cotangents (v, v_scale, v_shift) of (∂x, ∂g, ∂b) to those of (∂y, x, g, b)."""
        grad_y, x, scale, a, mean, rstd, grad_x, grad_scale, grad_a = ctx.saved_tensors
        groups = ctx.groups
        batch, channels = x.shape[:2]
        space = [1] * (x.ndim - 2)
        per_channel = (batch, channels, *space)
        per_group = x[0].numel() // groups
        v = torch.zeros_like(x) if v is None else v.contiguous()

        # q = P(v): v pushed through the normalisation; sum_vn = Σ v n per channel comes with it.
        ones = torch.ones_like(scale)
        q, sum_vn, _ = _normalise_backward(v, x, ones, mean, rstd, groups)
        normal = (x.view(batch, groups, -1) - mean.view(batch, groups, 1)) * rstd.view(
            batch, groups, 1
        )
        normal = normal.view_as(x)

        # t is the cotangent of ∂a: from ∂x, ∂g and ∂b.
        t = q * scale.view(per_channel)
        if v_scale is not None:
            t.addcmul_(normal, v_scale.view(per_channel))
        if v_shift is not None:
            t.add_(v_shift.view(per_channel))
        to_grad_y = aten.silu_backward(t, a)

        # silu''(a) = s (1 − s) (2 + a (1 − 2s)); its path reaches x and g through a.
        s = a.sigmoid()
        curvature = (a + 2).addcmul_(a, s, value=-2)
        via_a = torch.addcmul(s, s, s, value=-1).mul_(curvature).mul_(grad_y).mul_(t)
        to_x, to_scale, to_shift = _normalise_backward(via_a, x, scale, mean, rstd, groups)

        # The derivative of P itself, through n and r.
        grad_a_q = (grad_a * q).flatten(2).sum(2)

        def group_mean(value: Tensor) -> Tensor:
            """Σ over a group's channels / its size, times −r, spread back over its channels."""
            mean_ = value.view(batch, groups, -1).sum(2) / per_group
            scaled = -(mean_ * rstd.view(batch, groups))
            return scaled.repeat_interleave(channels // groups, 1).view(per_channel)

        to_x.addcmul_(grad_x, group_mean(sum_vn))
        to_x.addcmul_(q, group_mean(grad_scale * scale))
        to_x.addcmul_(normal, group_mean(grad_a_q * scale))
        if v_scale is not None:
            to_x.add_(_normalise_backward(grad_a, x, v_scale, mean, rstd, groups)[0])
        return to_grad_y, to_x, to_scale + grad_a_q, to_shift, None, None, None, None


def _normalise_backward(
    grad: Tensor, x: Tensor, scale: Tensor, mean: Tensor, rstd: Tensor, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Through n·g + b: (P(grad·g) like x, Σ grad n (B, C), Σ grad (B, C))."""
    batch, channels = x.shape[:2]
    grad_x, grad_scale, grad_shift = aten.native_group_norm_backward(
        grad.contiguous(),
        x,
        mean,
        rstd,
        scale.reshape(-1),
        1,
        batch * channels,
        x[0, 0].numel(),
        batch * groups,
        (True, True, True),
    )
    return grad_x.view_as(x), grad_scale.view_as(scale), grad_shift.view_as(scale)
