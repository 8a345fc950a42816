"""What was understood of the data, in one line, to be read before hours are spent on them."""

import numpy as np

from energydiff.data.source import Source, Splits

SHOWN_CLASSES = 10


def understood(splits: Splits) -> str:
    """How many samples, of which shape, range and classes, and what was not read."""
    train, held_out = splits
    held = f"{len(held_out):,} held out" if len(held_out) else "none held out to validate on"
    parts = [
        f"{len(train):,} samples to train on and {held}, {_shape(train)}, {_values(train)}",
        *([_classes(train)] if train.classes else []),
        *train.remarks,
    ]
    return f"Data: {'; '.join(parts)}."


def _shape(source: Source) -> str:
    if len(source.shape) != 3:
        return f"{' × '.join(map(str, source.shape))} numbers each"
    channels, height, width = source.shape
    return f"{channels} channel{'s' if channels > 1 else ''} of {height} × {width} pixels"


def _values(source: Source) -> str:
    normalization = source.normalization
    if normalization.moments is None:
        told = f"{normalization.low:g} to {normalization.high:g} read as -1 to 1"
    else:
        told = "each channel standardised"
    if normalization.decoder is None:
        return told
    size = " × ".join(map(str, normalization.decoder.shape_of(source.shape)))
    return f"{told}, decoded to {size}"


def _classes(source: Source) -> str:
    """Each with its number of training samples, or the first and the span of the others."""
    counts = np.bincount(source.labels, minlength=len(source.classes))
    told = [f"{name} ({n:,})" for name, n in zip(source.classes, counts, strict=True)]
    others = counts[SHOWN_CLASSES:]
    if len(others):
        told[SHOWN_CLASSES:] = [f"{len(others):,} more ({others.min():,} to {others.max():,} each)"]
    text = f"{len(counts):,} class{'es' if len(counts) > 1 else ''}: {', '.join(told)}"
    empty = [name for name, n in zip(source.classes, counts, strict=True) if not n]
    if empty:
        more = ", …" if len(empty) > SHOWN_CLASSES else ""
        text += f"; none to train on of {', '.join(empty[:SHOWN_CLASSES])}{more}"
    return text
