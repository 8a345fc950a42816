"""The closed forms of :mod:`.energy_attention` over chunks of queries: any device, any precision.

Beside tensors like Q and K, some rows of A are held per head. The pushforward is made of
differentiable operations; the others may write in place.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

ROWS = 128  # of A per head on a CPU: as fast as any other number
CHUNK_BYTES = 2**28  # of logits on an accelerator, where few large operations are fast


def value(q: Tensor, k: Tensor, self_excluded: bool) -> Tensor:
    """Σℓ."""
    with torch.autocast(q.device.type, enabled=False):
        lse = [_logits(qc, k, rows, self_excluded).logsumexp(-1) for rows, qc in _chunks(k, q)]
        return torch.cat(lse, -1).sum(-1)


def terms(q: Tensor, k: Tensor, self_excluded: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Σℓ, AK and AᵀQ."""
    lse, to_q = [], []
    to_k = torch.zeros_like(k, dtype=_wide(k.dtype))
    with torch.autocast(q.device.type, enabled=False):
        for rows, qc in _chunks(k, q):
            s = _logits(qc, k, rows, self_excluded)
            lse.append(s.logsumexp(-1))
            a = s.sub_(lse[-1][..., None]).exp_().to(q.dtype)
            to_q.append(a @ k)
            to_k += a.mT @ qc
        return torch.cat(lse, -1).sum(-1), torch.cat(to_q, -2), to_k.to(k.dtype)


def pullback(
    q: Tensor, k: Tensor, d1: Tensor, d2: Tensor, self_excluded: bool
) -> tuple[Tensor, Tensor]:
    """Cotangents d₁ of AK and d₂ of AᵀQ to those of Q and K."""
    to_q = []
    to_k = torch.zeros_like(k, dtype=_wide(k.dtype))
    with torch.autocast(q.device.type, enabled=False):
        for rows, qc, d1c in _chunks(k, q, d1):
            a = _logits(qc, k, rows, self_excluded).softmax(-1)
            m = (d1c @ k.mT).add_(qc @ d2.mT).to(a.dtype)
            ds = torch.ops.aten._softmax_backward_data(m, a, -1, a.dtype).to(q.dtype)
            a = a.to(q.dtype)
            to_q.append((ds @ k).add_(a @ d2))
            to_k += (ds.mT @ qc).add_(a.mT @ d1c)
    return torch.cat(to_q, -2), to_k.to(k.dtype)


def pushforward(
    q: Tensor, k: Tensor, t_q: Tensor, t_k: Tensor, self_excluded: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Tangents of Q and K to those of Σℓ, AK and AᵀQ."""
    t_lse, t_to_q, t_to_k = [], [], []
    for rows, qc, tqc in _chunks(k, q, t_q):
        a = _logits(qc, k, rows, self_excluded).softmax(-1)
        ds = tqc @ k.mT + qc @ t_k.mT
        dl = (a * ds).sum(-1, keepdim=True)
        da = a * (ds - dl)
        t_lse.append(dl.squeeze(-1))
        t_to_q.append(da @ k + a @ t_k)
        t_to_k.append(da.mT @ qc + a.mT @ tqc)
    return torch.cat(t_lse, -1).sum(-1), torch.cat(t_to_q, -2), torch.stack(t_to_k).sum(0)


def whole(q: Tensor, k: Tensor, self_excluded: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Σℓ, AK and AᵀQ in ordinary operations on whole matrices, for a compiler to differentiate."""
    with torch.autocast(q.device.type, enabled=False):
        s = _logits(q, k, slice(0, q.shape[-2]), self_excluded)
        a = s.softmax(-1).to(q.dtype)
        return s.logsumexp(-1).sum(-1), a @ k, a.mT @ q


def rows_per_chunk(q: Tensor, k: Tensor) -> int:
    """How many queries are taken at once."""
    if q.device.type == "cpu":
        return ROWS
    row = q.shape[:-2].numel() * k.shape[-2] * _wide(q.dtype).itemsize
    return max(1, CHUNK_BYTES // max(1, row))


def _chunks(k: Tensor, q: Tensor, *others: Tensor) -> Iterator[tuple[Any, ...]]:
    """(rows, chunk of q, of what else is per query…)."""
    step, tokens = rows_per_chunk(q, k), q.shape[-2]
    for start in range(0, tokens, step):
        rows = slice(start, min(start + step, tokens))
        yield rows, *(t[..., rows, :] for t in (q, *others))


def _logits(q: Tensor, k: Tensor, rows: slice, self_excluded: bool) -> Tensor:
    """Some rows of QKᵀ in float32 or wider, −∞ where a token would see itself."""
    s = q @ k.mT
    s = s.to(_wide(s.dtype))
    if self_excluded:
        query = torch.arange(rows.start, rows.stop, device=s.device)
        s = s.masked_fill(query[:, None] == torch.arange(k.shape[-2], device=s.device), -torch.inf)
    return s


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
