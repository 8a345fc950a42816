"""The nearest of many samples to each of many others, in bounded memory.

‖q‖² − 2⟨q, o⟩ + ‖o‖² chooses the candidates, by matrix products; differences then say how far they
are, for next to a copy the products leave nothing but rounding.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from energydiff.data import Source
from energydiff.progress import progress

OTHERS, QUERIES = 1_024, 4_096  # at a time
SPARE = 2  # candidates beyond those asked for, which rounding may have put behind them


@dataclass(frozen=True)
class Neighbours:
    """The k nearest of each of n queries, nearest first; ∞ and −1 where there are fewer.

    Attributes:
        distance: L2, units of the samples, (n, k) float64.
        index: which they are, (n, k).
    """

    distance: Tensor
    index: Tensor

    @property
    def ratio(self) -> Tensor:
        """d₁/d₂ of each query, (n,); NaN where there is no second, or it is as near as it gets."""
        first, second = self.distance[:, 0], self.distance[:, 1]
        return torch.where(second.isfinite() & (second > 0), first / second, torch.nan)


def nearest_neighbours(
    queries: Tensor, others: Tensor | Source, k: int = 2, *, others_but_itself: bool = False
) -> Neighbours:
    """Of each query (n, \\*shape) the k nearest among (m, \\*shape), or samples of a source.

    Memory beyond the queries is that of 4,096 × 1,024 distances and of as many others; of a source
    no more than 1,024 samples are read at a time.

    Args:
        others_but_itself: query i is the i-th of the others, and not its own neighbour.
    """
    flat = queries.detach().flatten(1).float()
    squares = flat.double().square().sum(1).float()
    kept = k + SPARE
    best = torch.full((len(flat), kept), torch.inf)
    which = torch.full((len(flat), kept), -1)
    with progress("Looking for neighbours", len(others)) as tell:
        first = 0
        for part in _batches(others):
            length = part.square().sum(1)
            for start in range(0, len(flat), QUERIES):
                rows = slice(start, start + QUERIES)
                found = torch.addmm(
                    length.expand(len(flat[rows]), -1), flat[rows], part.T, alpha=-2
                )
                found += squares[rows, None]
                if others_but_itself:
                    own = torch.arange(start, start + len(found)) - first
                    inside = ((own >= 0) & (own < len(part))).nonzero()[:, 0]
                    found[inside, own[inside]] = torch.inf
                nearer, place = found.topk(min(kept, len(part)), largest=False)
                both = torch.cat([best[rows], nearer], 1)
                index = torch.cat([which[rows], place + first], 1)
                best[rows], order = both.topk(kept, largest=False)
                which[rows] = index.gather(1, order)
            first += len(part)
            tell(first)
    return _exact(flat, others, best, which, k)


def _exact(
    queries: Tensor, others: Tensor | Source, best: Tensor, which: Tensor, k: int
) -> Neighbours:
    """The candidates' distances by differences, in order."""
    distance = torch.full(which.shape, torch.inf, dtype=torch.float64)
    for start in range(0, len(queries), OTHERS):
        rows = slice(start, start + OTHERS)
        numbers, inverse = which[rows].clamp(min=0).unique(return_inverse=True)
        samples = torch.cat([*_batches(others, numbers)])
        for column in range(which.shape[1]):
            difference = queries[rows] - samples[inverse[:, column]]
            distance[rows, column] = difference.double().norm(dim=1)
    distance[best.isinf()] = torch.inf
    distance, order = distance.sort(stable=True)
    index = torch.where(distance.isfinite(), which.gather(1, order), -1)
    return Neighbours(distance[:, :k], index[:, :k])


def _batches(others: Tensor | Source, numbers: Tensor | None = None):  # type: ignore[no-untyped-def]
    """All of them, or those of these numbers, flat and a part at a time."""
    if isinstance(others, Tensor):
        chosen = others if numbers is None else others[numbers]
        yield from (part.detach().flatten(1).float() for part in chosen.split(OTHERS))
    else:
        source: Dataset = others if numbers is None else others.select(numbers.numpy())  # type: ignore[type-arg]
        for raw, _ in DataLoader(source, OTHERS):
            yield others.normalization.encode(raw).flatten(1)
