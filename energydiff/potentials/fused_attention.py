"""The closed forms of :mod:`.energy_attention` by PyTorch's fused attention, in O(N) memory.

With SDPA(Q, K, V) = AV and its backward, which takes ∂Y to dS = A∘(∂Y Vᵀ − rowsum), ∂V = Aᵀ∂Y:

    AK = SDPA(Q, K, K),    AᵀQ = ∂V of it for ∂Y = Q,    ℓ is what the kernel keeps for its backward
    M = d₁Kᵀ + Qd₂ᵀ: the backward of SDPA(Q, K, K) for d₁ and of SDPA(Q, K, d₂) for Q together

Only the public function and first derivatives of it are used, so PyTorch chooses the kernel.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend

from energydiff.derivatives import ordinary


def serves(q: Tensor, k: Tensor) -> bool:
    """Whether a fused kernel takes these tensors, and is the faster way."""
    if q.device.type == "cpu":  # measured: elsewhere chunks are faster, up to twice
        return q.shape[-1] <= 32 and k.shape[-2] >= 128 and _has_kernel(q, k)
    return q.device.type == "cuda" and _has_kernel(q, k)


def value(q: Tensor, k: Tensor) -> Tensor:
    """Σℓ."""
    with _scope(q):
        k = _leaf(k)
        return _total(_attend(_plain(q), k, k), q)


def terms(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Σℓ, AK and AᵀQ."""
    with _scope(q):
        query, values = _plain(q), _leaf(k)
        mixed = _attend(query, values.detach(), values)
        total = _total(mixed, q)
        (to_k,) = torch.autograd.grad(mixed, values, query)
        return total, _like(mixed, q), _like(to_k, k)


def pullback(q: Tensor, k: Tensor, d1: Tensor, d2: Tensor) -> tuple[Tensor, Tensor]:
    """Cotangents d₁ of AK and d₂ of AᵀQ to those of Q and K."""
    with _scope(q):
        query, key, values = _leaf(q), _leaf(k), _leaf(k)
        first, second = _attend(query, key, values), _attend(query, key, _plain(d2))
        to_q, to_k, via_a = torch.autograd.grad(
            (first, second), (query, key, values), (_plain(d1), query.detach())
        )
        return _like(to_q + second, q), _like(to_k + via_a, k)


@contextmanager
def _scope(q: Tensor) -> Iterator[None]:
    """Where a graph of kernels can be built, whatever mode the caller is in, in q's precision."""
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(q.device.type, enabled=False),
    ):
        yield


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, scale=1.0)


def _total(mixed: Tensor, q: Tensor) -> Tensor:
    """Σℓ, in float32 or wider, from the graph of an attention; some kernels pad ℓ."""
    kept: Tensor = mixed.grad_fn._saved_logsumexp  # type: ignore[union-attr]
    lse = kept.reshape(*mixed.shape[:2], -1)[..., : q.shape[-2]]
    return lse.sum(-1).reshape(q.shape[:-2])


def _plain(t: Tensor) -> Tensor:
    """As kernels want it, outside of any graph: (B, H, N, Y), Y a multiple of 8."""
    t = ordinary(t).detach()
    t = t.reshape(-1, *(1, 1, *t.shape)[-3:])
    missing = -t.shape[-1] % 8
    return F.pad(t, (0, missing)) if missing else t


def _leaf(t: Tensor) -> Tensor:
    return _plain(t).requires_grad_()


def _like(t: Tensor, like: Tensor) -> Tensor:
    return t.detach()[..., : like.shape[-1]].reshape(like.shape).contiguous()


def _has_kernel(q: Tensor, k: Tensor) -> bool:
    """Whether PyTorch would not fall back to whole matrices."""
    with _scope(q):
        k = _leaf(k)
        choice: int = torch._fused_sdp_choice(_plain(q), k, k, scale=1.0)
        return choice != SDPBackend.MATH.value  # type: ignore[attr-defined]
