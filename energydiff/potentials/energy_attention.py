"""Log-sum-exp attention as an energy, its gradient in closed form, without an N×N matrix.

With S = QKᵀ, A = softmax over keys and ℓ_C = logsumexp_B S_CB, the sum Σ_C ℓ_C has

    ∂/∂Q = AK,    ∂/∂K = AᵀQ

(Hoover et al. 2023, arXiv:2302.07253). A score is written with these, so training
differentiates them once. For cotangents d₁, d₂ of the two, with M = d₁Kᵀ + Qd₂ᵀ:

    dS = A∘(M − rowsum(A∘M)),    dQ = dS K + A d₂,    dK = dSᵀQ + Aᵀd₁

Both steps are made either of PyTorch's fused attention (:mod:`.fused_attention`) or of chunks of
queries (:mod:`.chunked_attention`); A is made again in the backward pass.
"""

from typing import Any

import torch
from torch import Tensor

from energydiff.errors import UserError
from energydiff.potentials import chunked_attention, fused_attention
from energydiff.potentials.last_derivative import LastDerivative


def attention_terms(
    q: Tensor, k: Tensor, self_excluded: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Σ_C ℓ_C, where ℓ = logsumexp over keys of QKᵀ, and its gradient: (Σℓ, AK, AᵀQ).

    An inverse temperature β belongs into ``q``. ``torch.func`` works on all three. Σℓ is twice
    differentiable, the gradients once: what would be a third derivative of Σℓ raises.

    Args:
        q: (…, N, Y).
        k: (…, M, Y).
        self_excluded: no query sees the key of its own token; M = N.

    Returns:
        Σℓ (…,), in float32 or wider; AK like ``q``; AᵀQ like ``k``.

    Raises:
        UserError: with ``self_excluded``, one token alone, which would have nothing to attend to.
    """
    _require_another(k, self_excluded)
    if torch.compiler.is_compiling():
        return chunked_attention.whole(q, k, self_excluded)
    return _Terms.apply(q, k, self_excluded)


def attention_value(q: Tensor, k: Tensor, self_excluded: bool = False) -> Tensor:
    """Σℓ of :func:`attention_terms` alone, without the work of the gradients if none are
    enabled."""
    # An ordinary backward through ℓ would hold whole matrices; a compiler drops what is unused.
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return attention_terms(q, k, self_excluded)[0]
    _require_another(k, self_excluded)
    return _Value.apply(q, k, self_excluded)


def _fused(q: Tensor, k: Tensor, self_excluded: bool) -> bool:
    """The one choice between fused attention and chunks: fused kernels take no mask, and not every
    device and precision has one."""
    return not self_excluded and fused_attention.serves(q, k)


class _Terms(torch.autograd.Function):
    @staticmethod
    def forward(q: Tensor, k: Tensor, self_excluded: bool) -> tuple[Tensor, ...]:  # type: ignore[override]
        if _fused(q, k, self_excluded):
            return fused_attention.terms(q, k)
        return chunked_attention.terms(q, k, self_excluded)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        q, k, ctx.self_excluded = inputs
        ctx.save_for_backward(q, k, *output[1:])
        ctx.save_for_forward(q, k)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, d_l: Tensor | None, d1: Tensor | None, d2: Tensor | None) -> Any:  # type: ignore[override]
        q, k, to_q, to_k = ctx.saved_tensors
        via_value, via_gradient = None, None
        if d_l is not None:  # may be differentiated again
            d_l = d_l[..., None, None].to(q.dtype)
            via_value = d_l * to_q, d_l * to_k
        if d1 is not None or d2 is not None:
            d1 = torch.zeros_like(q) if d1 is None else d1
            d2 = torch.zeros_like(k) if d2 is None else d2
            via_gradient = _Pullback.apply(q, k, d1, d2, ctx.self_excluded)
        if via_value is None or via_gradient is None:
            return *(via_value or via_gradient or (None, None)), None
        return via_value[0] + via_gradient[0], via_value[1] + via_gradient[1], None

    @staticmethod
    def jvp(ctx: Any, t_q: Tensor | None, t_k: Tensor | None, _: Any) -> Any:  # type: ignore[override]
        q, k = ctx.saved_tensors
        t_q = torch.zeros_like(q) if t_q is None else t_q
        t_k = torch.zeros_like(k) if t_k is None else t_k
        return chunked_attention.pushforward(q, k, t_q, t_k, ctx.self_excluded)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:  # type: ignore[override]
        return _Terms.apply(*_batched(info, in_dims, inputs)), (0, 0, 0)


class _Value(torch.autograd.Function):
    """Σℓ where no gradients are enabled."""

    @staticmethod
    def forward(q: Tensor, k: Tensor, self_excluded: bool) -> Tensor:  # type: ignore[override]
        if _fused(q, k, self_excluded):
            return fused_attention.value(q, k)
        return chunked_attention.value(q, k, self_excluded)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _Terms.setup_context(ctx, inputs, (output,))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:  # type: ignore[override]
        return _Terms.jvp(ctx, *tangents)[0]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:  # type: ignore[override]
        return _Value.apply(*_batched(info, in_dims, inputs)), 0


class _Pullback(LastDerivative):
    """Cotangents of (AK, AᵀQ) to those of (Q, K)."""

    @staticmethod
    def forward(q: Tensor, k: Tensor, d1: Tensor, d2: Tensor, self_excluded: bool) -> Any:  # type: ignore[override]
        if _fused(q, k, self_excluded):
            return fused_attention.pullback(q, k, d1, d2)
        return chunked_attention.pullback(q, k, d1, d2, self_excluded)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:  # type: ignore[override]
        return _Pullback.apply(*_batched(info, in_dims, inputs)), (0, 0)


def _batched(info: Any, in_dims: tuple[Any, ...], inputs: tuple[Any, ...]) -> list[Any]:
    """All tensors with the batch in front; the last input is none."""
    return [
        *(
            t.expand(info.batch_size, *t.shape) if d is None else t.movedim(d, 0)
            for t, d in zip(inputs[:-1], in_dims, strict=False)
        ),
        inputs[-1],
    ]


def _require_another(k: Tensor, self_excluded: bool) -> None:
    if self_excluded and k.shape[-2] == 1:
        raise UserError(
            "self_excluded attention needs at least two tokens, got one: there is nothing else to"
            " attend to."
        )
