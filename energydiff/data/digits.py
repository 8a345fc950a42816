"""The embedded default: scikit-learn's 1,797 handwritten digits, 8x8 grey, values 0..16."""

import numpy as np

from energydiff.data.normalization import Normalization
from energydiff.data.source import ArraySource, Splits, index_names
from energydiff.data.split import split_rows


def open_digits(*, labels: bool, held_out: float) -> Splits:
    """uint8 samples (1, 8, 8) of 0..16; ten classes when labels are asked for."""
    # Importing scikit-learn takes a second, which no other source should pay.
    from sklearn.datasets import load_digits

    bunch = load_digits()
    names = index_names(len(bunch.images))
    source = ArraySource(
        bunch.images[:, None].astype(np.uint8),
        Normalization(0, 16),
        names,
        classes=tuple(str(name) for name in bunch.target_names) if labels else (),
        labels=bunch.target.astype(np.int64) if labels else None,
    )
    train, held = split_rows(names, held_out, "digits")
    return Splits(source.select(train), source.select(held))
