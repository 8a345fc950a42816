"""Where the minima of a disconnectivity graph stand side by side, so that no branches cross."""

from collections.abc import Sequence
from dataclasses import dataclass

from energydiff.landscape.morse import Merge, MorseGraph


@dataclass(frozen=True)
class Tree:
    """Minima in a row, and where they merge as V rises.

    Every minimum goes straight up from its V to the level at which it joins one of lower V (its
    ``Merge``); the lowest of each part goes up for ever. A group stands on that side of the one it
    joins which has fewer minima yet, so that low minima stand in the middle.

    Attributes:
        places: by number of minimum, from left to right 0, 1, …; with a gap of 1 between parts.
        merges: of the minima shown, from the lowest level up.
        roots: the lowest minimum of each part, the largest part first.
    """

    places: dict[int, int]
    merges: list[Merge]
    roots: list[int]

    def tops(self, value: Sequence[float]) -> dict[int, float]:
        """Where the line of each minimum ends; those of the roots somewhat above all else.

        ``value``: V of all minima.
        """
        shown = [value[minimum] for minimum in self.places]
        highest = max([*shown, *(merge.level for merge in self.merges)])
        height = max(highest - min(shown), 1e-3 * abs(highest), 1e-12)
        ends = dict.fromkeys(self.roots, highest + 0.08 * height)
        return ends | {merge.groups[1]: merge.level for merge in self.merges}


def tree(graph: MorseGraph, leaves: int) -> Tree:
    """The ``leaves`` minima of which the barriers to a lower one are highest, merged."""
    value = graph.minima.free_energy.tolist()
    merges = graph.merges()
    depth = dict.fromkeys(range(len(value)), float("inf"))
    depth |= {merge.groups[1]: merge.level - value[merge.groups[1]] for merge in merges}
    # A minimum is never less deep than one that joins it, so what is kept stays joined.
    kept = set(sorted(depth, key=lambda m: (-depth[m], value[m]))[:leaves])
    merges = [merge for merge in merges if merge.groups[1] in kept]
    rows = {minimum: [minimum] for minimum in kept}
    for merge in merges:
        low, high = merge.groups
        joined, row = rows.pop(high), rows[low]
        left = row.index(low)
        rows[low] = joined + row if left < len(row) - 1 - left else row + joined
    places: dict[int, int] = {}
    roots = sorted(rows, key=lambda m: (-len(rows[m]), value[m]))
    for gap, root in enumerate(roots):
        start = len(places) + gap
        places |= {minimum: start + i for i, minimum in enumerate(rows[root])}
    return Tree(places, merges, roots)
