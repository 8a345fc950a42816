"""Which samples a run's passes take, remembered by name: data may grow while a run is away.

The order of a pass is a function of the seed, its number and how many samples there are. So a pass
that was begun is finished with the samples it was begun with, and new ones come in with the next:
every sample is seen once in every pass, and the images before that are those of a run whose data
had stayed as they were.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from energydiff.data import Source
from energydiff.data.source import Rows
from energydiff.errors import UserError

SEPARATOR = "\0"  # of names, which hold none


@dataclass(frozen=True)
class Stretch:
    """Passes over the same samples, from image ``start`` of a run on.

    Attributes:
        start: the first image of its first pass.
        passes: how many passes the run had made before.
        places: the sample of each place of a pass, (N,).
    """

    start: int
    passes: int
    places: Rows

    def find(self, count: int) -> tuple[int, int]:
        """The pass that image ``count`` of the run belongs to, and its place there."""
        number, place = divmod(count - self.start, len(self.places))
        return self.passes + number, place

    def then(self, seen: int, places: Rows) -> "Stretch":
        """What follows the pass that is begun when ``seen`` images were seen."""
        done = -(-(seen - self.start) // len(self.places))
        return Stretch(self.start + done * len(self.places), self.passes + done, places)


def recorded(stretches: Sequence[Stretch], source: Source) -> list[dict[str, Any]]:
    """For a checkpoint: plain data and tensors."""
    return [
        {
            "start": s.start,
            "passes": s.passes,
            "names": _pack([source.names[place] for place in s.places.tolist()]),
        }
        for s in stretches
    ]


def resumed(record: Sequence[Mapping[str, Any]], seen: int, source: Source) -> list[Stretch]:
    """The stretches from image ``seen`` on, of data that may have changed, which is warned of.

    Raises:
        UserError: no sample of the pass at hand is found under its name.
    """
    now = [source.names[place] for place in source.places.tolist()]
    names = [_unpack(entry["names"]) for entry in record]
    begun = max(i for i, entry in enumerate(record) if entry["start"] <= seen)
    start, passes, then = record[begun]["start"], record[begun]["passes"], names[begun]
    if then == now:
        return [Stretch(start, passes, source.places)]
    rows = {name: row for row, name in enumerate(source.names)}
    present = [rows.get(name, -1) for name in then]
    if max(present) < 0:
        raise UserError(
            f"none of the {len(then):,} samples of this run, such as {then[0]}, is found under its"
            " name in data.source: give it the same data (names are paths below data.source.root),"
            " or choose another trainer.default_root_dir."
        )
    at_hand = Stretch(start, passes, _filled(present))
    following = at_hand.then(seen, source.places)
    if names[-1] != now:
        _warn(names[-1], now, following.start)
    return [at_hand, following] if following.start > seen else [following]


def _filled(present: Sequence[int]) -> Rows:
    """Rows with the next one that is present in the place of each that is not (-1)."""
    rows = np.array(present, np.int64)
    found = np.flatnonzero(rows >= 0)
    following = np.searchsorted(found, np.arange(len(rows))) % len(found)
    return rows[found[following]]


def _warn(then: Sequence[str], now: Sequence[str], start: int) -> None:
    gone, new = set(then).difference(now), set(now).difference(then)
    told = [f"{len(new):,} are new"] if new else []
    if gone:
        told.append(
            f"{len(gone):,} are gone or have another name, such as {min(gone)} (a file that was"
            " renamed may have changed sides between training and held-out)"
        )
    rank_zero_warn(
        f"the training samples are others than when this run was cut off: {' and '.join(told)}."
        f" The pass at hand is finished with those it began with, and from image {start:,} on"
        " passes take all."
    )


def _pack(names: Sequence[str]) -> Tensor:
    """Names as bytes in a tensor."""
    joined = SEPARATOR.join(names).encode("utf-8", "surrogatepass")
    return torch.frombuffer(bytearray(zlib.compress(joined)), dtype=torch.uint8)


def _unpack(packed: Tensor) -> list[str]:
    joined = zlib.decompress(packed.numpy().tobytes())
    return joined.decode("utf-8", "surrogatepass").split(SEPARATOR)
