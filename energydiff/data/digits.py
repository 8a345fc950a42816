"""The embedded default: scikit-learn's 1,797 handwritten digits, 8x8 grey, values 0..16."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from energydiff.data.normalization import Normalization
from energydiff.data.source import ArraySource, Splits, index_names
from energydiff.data.spec import DataSpec
from energydiff.data.split import HELD_OUT, split_rows


@dataclass(frozen=True)
class Digits(DataSpec):
    """scikit-learn's digits: uint8 samples (1, 8, 8) of 0..16, ten classes.

    Args:
        held_out: share of samples kept out of training, chosen by a hash of their numbers.
    """

    labelled: ClassVar[bool] = True

    held_out: float = HELD_OUT

    def open(self) -> Splits:
        # Importing scikit-learn takes a second, which no other source should pay.
        from sklearn.datasets import load_digits

        bunch = load_digits()
        names = index_names(len(bunch.images))
        source = ArraySource(
            bunch.images[:, None].astype(np.uint8),
            Normalization(0, 16),
            names,
            classes=tuple(str(name) for name in bunch.target_names) if self.labels else (),
            labels=bunch.target.astype(np.int64) if self.labels else None,
        )
        train, held = split_rows(names, self.held_out, "digits")
        return Splits(source.select(train), source.select(held))
