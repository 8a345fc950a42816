"""Backtracking: a step downhill that leads too high is shortened, sample by sample.

Nocedal & Wright 2006, §3.1, with the condition left to the caller.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from energydiff.energies.base import like, per_sample

TRIES = 30  # of a step, after which a sample stays where it is


@dataclass(frozen=True)
class Backtracked:
    """Where the samples went.

    Attributes:
        x: (B, \\*shape).
        step: η taken, (B,); 0 where the sample stayed.
        value: at ``x``, (B,).
        refused: tries that led too high, (B,) integers.
    """

    x: Tensor
    step: Tensor
    value: Tensor
    refused: Tensor


def backtrack(
    evaluate: Callable[[Tensor, Tensor], Tensor],
    highest: Callable[[Tensor], Tensor],
    x: Tensor,
    value: Tensor,
    downhill: Tensor,
    step: float | Tensor,
    *,
    proposal: Tensor | None = None,
    rows: Tensor | None = None,
    retry: float = 0.5,
    tries: int = TRIES,
) -> Backtracked:
    """Try x − η·downhill, halving η where the value there is too high or not a number.

    Args:
        evaluate: the value of samples (R, \\*shape), (R,), given also their indices (R,).
        highest: the highest value that steps (B,) may lead to, (B,).
        x: where the samples are, (B, \\*shape); ``value`` there, (B,); ``downhill`` like x.
        step: the first η, one for all or (B,).
        proposal: what is tried first in place of x − η·downhill, like x.
        rows: indices of the samples that move at all; all by default.
        retry: the second η in units of the first; every later one is half the one before.
        tries: after so many in vain a sample stays where it is.
    """
    step = like(step, value).expand_as(value).clone()
    moved = (x - per_sample(step, x) * downhill) if proposal is None else proposal.clone()
    start, value = value, value.clone()
    refused = torch.zeros_like(value, dtype=torch.int64)
    rows = torch.arange(len(x), device=x.device) if rows is None else rows
    for _ in range(tries):
        if not len(rows):
            break
        value[rows] = evaluate(moved[rows], rows)
        rows = rows[~(value[rows] <= highest(step)[rows])]  # or not finite
        refused[rows] += 1
        step[rows] *= retry
        moved[rows] = x[rows] - per_sample(step[rows], x) * downhill[rows]
        retry = 0.5
    moved[rows], step[rows], value[rows] = x[rows], 0.0, start[rows]
    return Backtracked(moved, step, value, refused)
