"""Nested parts of a training set: what it is to have fewer samples of the same kind."""

from dataclasses import dataclass

import numpy as np

from energydiff.data.source import Source
from energydiff.errors import UserError


@dataclass(frozen=True)
class Subset:
    """The first samples of a training set, in an order that their names and a seed decide.

    Of one seed a smaller subset is a part of every larger one, and two that skip 0 and K of K
    images each share none. Held-out samples are not touched.

    Args:
        images: how many, K.
        seed: of the order.
        skip: samples of that order that are passed over.
    """

    images: int
    seed: int = 0
    skip: int = 0

    def of(self, source: Source) -> Source:
        """The part of a source; ``UserError`` where it has too few samples."""
        if self.images < 1 or self.skip < 0:
            raise UserError(
                f"data.subset.images is {self.images} and data.subset.skip {self.skip}: at least 1"
                " and 0 are needed."
            )
        last = self.skip + self.images
        if last > len(source):
            skipped = f" after {self.skip:,} that are skipped" if self.skip else ""
            raise UserError(
                f"data.subset asks for {self.images:,} images{skipped}, and there are"
                f" {len(source):,} to train on: ask for fewer, or hold fewer out."
            )
        return source.shuffled(self.seed).select(np.arange(self.skip, last))
