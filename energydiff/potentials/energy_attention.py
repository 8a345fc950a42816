"""Log-sum-exp attention as an energy, its gradient in closed form, without an N×N matrix.

With S = QKᵀ, A = softmax over keys and ℓ_C = logsumexp_B S_CB, the weighted sum Σ_C w_C ℓ_C has

    ∂/∂Q = w∘(AK),    ∂/∂K = Aᵀ(w∘Q)

(Hoover et al. 2023, arXiv:2302.07253). A score is written with these, so training
differentiates them once. For cotangents dℓ, d₁, d₂ of ℓ and of the two gradients, with
M = d₁Kᵀ + Qd₂ᵀ and r = rowsum(A∘M):

    dS = A∘(w∘(M − r) + dℓ),    dw = r,    dQ = dS K + w∘(A d₂),    dK = dSᵀQ + Aᵀ(w∘d₁)

Everything runs over chunks of queries, and A is made again in the backward pass: beside tensors
like Q, at most ``CHUNK`` rows of A are held per head.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from energydiff.errors import UserError
from energydiff.potentials.last_derivative import last_derivative

CHUNK = 128  # as fast as any other on a CPU, and 1.1 to 3 times faster than whole matrices


def attention_terms(
    q: Tensor, k: Tensor, weight: Tensor, self_excluded: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """ℓ = logsumexp over keys of QKᵀ, and the gradient of Σ_C w_C ℓ_C: (ℓ, ∂Q, ∂K).

    An inverse temperature β belongs into ``q``: with q = βQ and w = −1/β, Σ w ℓ is the attention
    energy. ``torch.func`` works on all three. ℓ is twice differentiable, the gradients once: what
    would be a third derivative of Σ w ℓ raises.

    Args:
        q: (…, N, Y).
        k: (…, M, Y).
        weight: w, broadcast to (…, N).
        self_excluded: no query sees the key of its own token; M = N.

    Returns:
        ℓ (…, N), in float32 or wider; ∂Q like ``q``; ∂K like ``k``.

    Raises:
        UserError: with ``self_excluded``, one token alone, which would have nothing to attend to.
    """
    _require_another(k, self_excluded)
    weight = weight.to(torch.promote_types(q.dtype, torch.float32)).expand(q.shape[:-1])
    if torch.compiler.is_compiling():
        return _whole(q, k, weight, self_excluded)
    return _Terms.apply(q, k, weight, self_excluded)


def attention_value(q: Tensor, k: Tensor, weight: Tensor, self_excluded: bool = False) -> Tensor:
    """ℓ of :func:`attention_terms` alone, without the work of the gradients if none are enabled."""
    if torch.is_grad_enabled():  # an ordinary backward through ℓ would hold whole matrices
        return attention_terms(q, k, weight, self_excluded)[0]
    _require_another(k, self_excluded)
    with torch.autocast(q.device.type, enabled=False):
        chunks = [_logits(qc, k, rows, self_excluded).logsumexp(-1) for rows, qc in _chunks(q)]
    return torch.cat(chunks, -1)


def _whole(
    q: Tensor, k: Tensor, weight: Tensor, self_excluded: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The same in ordinary operations on whole matrices, for a compiler to differentiate."""
    with torch.autocast(q.device.type, enabled=False):
        s = _logits(q, k, slice(0, q.shape[-2]), self_excluded)
        lse = s.logsumexp(-1)
        a, w = (s - lse[..., None]).exp().to(q.dtype), weight[..., None]
        to_q = (w * (a @ k)).to(q.dtype)
        to_k = (a.mT @ (w * q).to(q.dtype)).to(k.dtype)
    return lse, to_q, to_k


class _Terms(torch.autograd.Function):
    @staticmethod
    def forward(q: Tensor, k: Tensor, w: Tensor, self_excluded: bool) -> tuple[Tensor, ...]:  # type: ignore[override]
        lse, to_q = [], []
        to_k = torch.zeros_like(k, dtype=w.dtype)
        with torch.autocast(q.device.type, enabled=False):
            for rows, qc, wc in _chunks(q, w):
                s = _logits(qc, k, rows, self_excluded)
                lse.append(s.logsumexp(-1))
                a = (s - lse[-1][..., None]).exp().to(q.dtype)
                to_q.append((wc * (a @ k)).to(q.dtype))
                to_k += a.mT @ (wc * qc).to(q.dtype)
        return torch.cat(lse, -1), torch.cat(to_q, -2), to_k.to(k.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        q, k, w, ctx.self_excluded = inputs
        ctx.save_for_backward(q, k, w, output[0])
        ctx.save_for_forward(q, k, w, output[0])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, d_l: Tensor | None, d1: Tensor | None, d2: Tensor | None) -> Any:  # type: ignore[override]
        if d1 is None and d2 is None:  # a plain function of ℓ: may be differentiated again
            if d_l is None:
                return None, None, None, None
            q, k = ctx.saved_tensors[:2]
            return *_Terms.apply(q, k, d_l, ctx.self_excluded)[1:], None, None
        q, k, _, lse = ctx.saved_tensors
        return *_second(
            ctx,
            torch.zeros_like(lse) if d_l is None else d_l,
            torch.zeros_like(q) if d1 is None else d1,
            torch.zeros_like(k) if d2 is None else d2,
        ), None

    @staticmethod
    def jvp(ctx: Any, t_q: Tensor | None, t_k: Tensor | None, t_w: Tensor | None, _: Any) -> Any:  # type: ignore[override]
        q, k, w, lse = ctx.saved_tensors
        t_q = torch.zeros_like(q) if t_q is None else t_q
        t_k = torch.zeros_like(k) if t_k is None else t_k
        t_w = torch.zeros_like(w) if t_w is None else t_w
        t_lse, t_to_q = [], []
        t_to_k: Any = 0
        for rows, qc, wc, tqc, twc, lc in _chunks(q, w, t_q, t_w, lse):
            a = (_logits(qc, k, rows, ctx.self_excluded) - lc).exp()
            ds = tqc @ k.mT + qc @ t_k.mT
            dl = (a * ds).sum(-1, keepdim=True)
            da = a * (ds - dl)
            t_lse.append(dl.squeeze(-1))
            t_to_q.append(twc * (a @ k) + wc * (da @ k + a @ t_k))
            t_to_k = t_to_k + da.mT @ (wc * qc) + a.mT @ (twc * qc + wc * tqc)
        return torch.cat(t_lse, -1), torch.cat(t_to_q, -2), t_to_k

    @staticmethod
    def vmap(  # type: ignore[override]
        info: Any, in_dims: tuple[Any, ...], q: Tensor, k: Tensor, w: Tensor, self_excluded: bool
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        batched = (
            t.expand(info.batch_size, *t.shape) if d is None else t.movedim(d, 0)
            for t, d in zip((q, k, w), in_dims, strict=False)
        )
        return _Terms.apply(*batched, self_excluded), (0, 0, 0)


@last_derivative
def _second(ctx: Any, d_l: Tensor, d1: Tensor, d2: Tensor) -> tuple[Tensor, ...]:
    """Cotangents of (ℓ, ∂Q, ∂K) to those of (Q, K, w)."""
    q, k, w, lse = ctx.saved_tensors
    to_q, to_w = [], []
    to_k: Any = 0
    with torch.autocast(q.device.type, enabled=False):
        for rows, qc, wc, lc, dlc, d1c in _chunks(q, w, lse, d_l, d1):
            a = (_logits(qc, k, rows, ctx.self_excluded) - lc).exp()
            m = (d1c @ k.mT + qc @ d2.mT).to(a.dtype)
            r = (a * m).sum(-1, keepdim=True)
            ds = (a * (wc * (m - r) + dlc)).to(q.dtype)
            a = a.to(q.dtype)
            to_q.append((ds @ k + wc * (a @ d2)).to(q.dtype))
            to_w.append(r.squeeze(-1))
            to_k = to_k + (ds.mT @ qc + a.mT @ (wc * d1c).to(q.dtype)).to(w.dtype)
    return torch.cat(to_q, -2), to_k.to(k.dtype), torch.cat(to_w, -1)


def _require_another(k: Tensor, self_excluded: bool) -> None:
    if self_excluded and k.shape[-2] == 1:
        raise UserError(
            "self_excluded attention needs at least two tokens, got one: there is nothing else to"
            " attend to."
        )


def _chunks(q: Tensor, *others: Tensor) -> Iterator[tuple[Any, ...]]:
    """(rows, chunk of q, …) over ``CHUNK`` queries; what has no last axis gets one of length 1."""
    per_query = (q, *(t if t.ndim == q.ndim else t[..., None] for t in others))
    for start in range(0, q.shape[-2], CHUNK):
        rows = slice(start, min(start + CHUNK, q.shape[-2]))
        yield rows, *(t[..., rows, :] for t in per_query)


def _logits(q: Tensor, k: Tensor, rows: slice, self_excluded: bool) -> Tensor:
    """Some rows of QKᵀ in float32 or wider, −∞ where a token would see itself."""
    s = q @ k.mT
    s = s.to(torch.promote_types(s.dtype, torch.float32))
    if self_excluded:
        query = torch.arange(rows.start, rows.stop, device=s.device)
        s = s.masked_fill(query[:, None] == torch.arange(k.shape[-2], device=s.device), -torch.inf)
    return s
