"""The held-out split: decided by a sample's name alone.

A sample is held out when a hash of its name, read as a number in [0, 1), is below the fraction.
Adding or removing other samples therefore never moves it across, and a larger fraction holds out
a superset of a smaller one.
"""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from energydiff.data.source import Rows, Source, hash_name
from energydiff.errors import UserError

HELD_OUT = 1 / 6


def is_held_out(name: str, fraction: float) -> bool:
    """Whether the sample of this name belongs to the held-out split."""
    return hash_name(name) < fraction * 2**64


def pictures(names: Sequence[str], variants: str | None) -> Sequence[str]:
    """What the hash is taken of that decides a file's side: its name, or, with a regular expression
    for what tells variants of one picture apart, what is left without it and without a suffix."""
    if variants is None:
        return names
    try:
        pattern = re.compile(variants)
    except re.error as error:
        raise UserError(
            f"data.source.variants is {variants!r}, no regular expression ({error})."
        ) from error
    return [pattern.sub("", str(PurePosixPath(name).with_suffix(""))) for name in names]


def split_rows(names: Sequence[str], fraction: float, where: str) -> tuple[Rows, Rows]:
    """Indices of the training samples and of the held-out samples, both in order.

    ``where`` names the data in messages. Raises UserError when fraction is negative or not below 1,
    or leaves a part without a sample, but for the held-out part of 0.
    """
    if not 0 <= fraction < 1:
        raise UserError(
            f"data.source.held_out must lie between 0 and 1, or be 0 to hold nothing out, got"
            f" {fraction}."
        )
    held = np.array([is_held_out(name, fraction) for name in names], dtype=bool)
    for empty, part in ((held.all(), "training"), (fraction and not held.any(), "held-out")):
        if empty:
            raise UserError(
                f"{where}: with data.source.held_out = {fraction:.3g}, none of its {len(names)} "
                f"samples falls in the {part} part; add samples or change data.source.held_out."
            )
    return np.flatnonzero(~held), np.flatnonzero(held)


def require_held_out(held_out: Source, what: str) -> Source:
    """The part itself; ``UserError``, beginning with ``what``, where nothing is held out."""
    if not len(held_out):
        raise UserError(
            f"{what} needs samples that were not trained on, and data.source.held_out is 0: train"
            " with a share of them held out."
        )
    return held_out
