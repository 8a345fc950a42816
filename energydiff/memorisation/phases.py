"""Memorised, spurious or generalised: what a generated sample is beside the training set.

With d_train the distance to the nearest training sample and d_syn that to the nearest other
generated one, a sample is memorised if d_train ≤ δ_m; spurious, a state that the model makes again
and again and that no training sample is, if d_train > δ_m and d_syn ≤ δ_s; else generalised (Pham
et al. 2025). The thresholds are such that few held-out samples would pass for either; the ratio
d₁/d₂ of the two nearest training distances (Yoon et al. 2023), which needs none, is told beside.
"""

from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from typing import Self

import numpy as np
import torch
from torch import Tensor

from energydiff.data import Source
from energydiff.errors import UserError
from energydiff.evaluation.neighbours import Neighbours, nearest_neighbours
from energydiff.progress import with_progress

FAR = 1e6  # from everything: where a sample that is not finite is put
RATIO = 1 / 3  # of d₁ to d₂, below which a sample counts as a copy


class Phase(IntEnum):
    """What a sample is."""

    MEMORISED = 0
    SPURIOUS = 1
    GENERALISED = 2


@dataclass(frozen=True)
class Rule:
    """The two thresholds, L2 distances in model coordinates or in an extractor's features.

    Attributes:
        memorised: δ_m.
        spurious: δ_s, of samples in blocks of ``block``: among more, neighbours are nearer.
        block: samples among which the nearest other is sought.
    """

    memorised: float
    spurious: float
    block: int

    def __post_init__(self) -> None:
        if not (self.memorised > 0 and self.spurious > 0 and self.block >= 2):
            raise UserError(
                f"thresholds are distances above 0 and a block has 2 samples or more; got"
                f" {self.memorised:g}, {self.spurious:g} and {self.block}."
            )

    @classmethod
    def calibrated(
        cls, held_out: Tensor, train: Tensor | Source, share: float = 0.01, block: int = 1_000
    ) -> Self:
        """Thresholds that this share of held-out samples (n, \\*shape) is below.

        δ_m of their distances to the training set, δ_s of those to each other, in blocks of
        ``block`` or as many as there are.

        Raises:
            UserError: too few are held out to see such a share, or so many are copies of training
                samples that no distance is left.
        """
        if not 0 < share < 1 or len(held_out) * share < 1:
            raise UserError(
                f"thresholds at a share of {share:g} need {round(1 / share) if share > 0 else 1}"
                f" held-out samples or more, and there are {len(held_out)}: hold more out, or give"
                " a larger share."
            )
        block = min(block, len(held_out))
        to_train = nearest_neighbours(held_out, train, 1).distance[:, 0]
        among = among_themselves(held_out, block).distance[:, 0]
        values = [float(d[d.isfinite()].quantile(share)) for d in (to_train, among)]
        if min(values) <= 0:
            raise UserError(
                f"{share:.1%} of the held-out samples or more are copies of others, so that no"
                " distance tells a copy: remove duplicates from the data."
            )
        return cls(values[0], values[1], block)


@dataclass(frozen=True)
class Sorted:
    """n samples and what they are.

    Attributes:
        phase: a :class:`Phase` each, (n,).
        train: their two nearest training samples.
        others: their nearest other sample, in blocks.
    """

    phase: Tensor
    train: Neighbours
    others: Neighbours

    def share(self, phase: Phase) -> float:
        return float((self.phase == phase).double().mean())

    @property
    def copies(self) -> float:
        """Share with d₁/d₂ < 1/3; NaN of a single training sample."""
        ratio = self.train.ratio
        known = ~ratio.isnan() | (self.train.distance[:, 0] == 0)
        if not bool(known.any()):
            return float("nan")
        return float(((ratio < RATIO) | (self.train.distance[:, 0] == 0)).double().mean())

    def rows(self, phase: Phase) -> Tensor:
        """Numbers of the samples of a phase."""
        return (self.phase == phase).nonzero()[:, 0]


def sort_samples(samples: Tensor, train: Tensor | Source, rule: Rule) -> Sorted:
    """What each of n samples (n, \\*shape) is. A sample that is not finite counts as generalised.

    Args:
        train: the training samples, each once: of a copy d₁/d₂ would be 1.
    """
    safe = samples.nan_to_num(FAR, FAR, -FAR)
    to_train = nearest_neighbours(safe, train, 2)
    others = among_themselves(safe, rule.block)
    phase = torch.full((len(samples),), int(Phase.GENERALISED))
    finite = samples.isfinite().flatten(1).all(1).cpu()
    phase[finite & (others.distance[:, 0] <= rule.spurious)] = int(Phase.SPURIOUS)
    phase[finite & (to_train.distance[:, 0] <= rule.memorised)] = int(Phase.MEMORISED)
    return Sorted(phase, to_train, others)


def among_themselves(samples: Tensor, block: int) -> Neighbours:
    """Of each sample the nearest other of its block; of a block of one ∞."""
    parts = [
        nearest_neighbours(part, part, 1, others_but_itself=True) for part in samples.split(block)
    ]
    index = [
        torch.where(part.index >= 0, part.index + number * block, -1)
        for number, part in enumerate(parts)
    ]
    return Neighbours(torch.cat([part.distance for part in parts]), torch.cat(index))


def without_copies(source: Source) -> Source:
    """The samples that equal none before them."""
    first: dict[bytes, int] = {}
    for i in with_progress(range(len(source)), len(source), "Looking for copies"):
        content = source[i][0].contiguous().numpy().tobytes()
        first.setdefault(blake2b(content, digest_size=16).digest(), i)
    return source.select(np.array(list(first.values()), np.int64))
