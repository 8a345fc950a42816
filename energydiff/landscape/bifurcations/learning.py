"""The learning landscape: critical points that persist, vanish and appear from model to model.

Between two checkpoints of a run a point of V₀ is first sought in V₁ by Newton from where it was,
at the same index. If that fails or leads far, it is followed along the homotopy (1 − t) V₀ + t V₁:
its branch either reaches t = 1 or folds back, and then the point has vanished.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from energydiff.errors import UserError
from energydiff.landscape.bifurcations.branches import CriticalSystem, start
from energydiff.landscape.bifurcations.continuation import follow
from energydiff.landscape.bifurcations.families import Homotopy
from energydiff.landscape.critical import CriticalPoints, examine, merging_radius
from energydiff.landscape.search import newton
from energydiff.landscape.surface import Surface


@dataclass(frozen=True)
class Step:
    """What became of n critical points from one model to the next, which has m.

    Attributes:
        partner: number of the point in the next model, (n,); −1 where it vanished.
        moved: distance to it, (n,), units of x; NaN where it vanished.
        index: pairs of Morse indices, before and after, (n, 2); −1 where it vanished.
        fold: t at which the homotopy's branch turns back, (n,); NaN where it does not.
        new: numbers of the next model's points that none became.
    """

    partner: Tensor
    moved: Tensor
    index: Tensor
    fold: Tensor
    new: Tensor

    def plain(self) -> dict[str, Any]:
        """As plain data; ``None`` where there is no number."""
        moved, fold = (
            [None if v != v else v for v in values.tolist()] for values in (self.moved, self.fold)
        )
        return {
            "partner": self.partner.tolist(),
            "moved": moved,
            "index": self.index.tolist(),
            "fold": fold,
            "new": self.new.tolist(),
        }


def learning_landscape(
    surfaces: Sequence[Surface],
    points: Sequence[CriticalPoints],
    sigma: float,
    reach: float,
    unit: float = 1.0,
    followed: int | None = None,
) -> list[Step]:
    """From each model of a run to the next.

    Args:
        surfaces: of the checkpoints, in order.
        points: critical points of each at ``sigma``, as found.
        reach: farther than this, units of x, Newton's point is not believed to be the same.
        unit: of a step along a homotopy, as of :class:`CriticalSystem`.
        followed: the highest index of points that are followed along the homotopy where Newton does
            not find them again, which takes long; all if not given.

    Raises:
        UserError: fewer than two models, or not as many sets of points.
    """
    if len(surfaces) < 2 or len(points) != len(surfaces):
        raise UserError(
            f"a learning landscape needs two models or more, each with its critical points: got"
            f" {len(surfaces)} models and {len(points)} sets."
        )
    pairs = zip(surfaces[:-1], surfaces[1:], points[:-1], points[1:], strict=True)
    return [track(*pair, sigma, reach, unit, followed) for pair in pairs]


def track(
    first: Surface,
    second: Surface,
    before: CriticalPoints,
    after: CriticalPoints,
    sigma: float,
    reach: float,
    unit: float = 1.0,
    followed: int | None = None,
) -> Step:
    """What became of the points of one model in another, as in :func:`learning_landscape`."""
    x = second.flat(before.x)
    there, arrived, fold = x.clone(), torch.zeros(len(x), dtype=torch.bool), _nan(len(x))
    for index in before.index.unique().tolist():
        rows = (before.index == index).nonzero()[:, 0]
        search = newton(second, x[rows], sigma, index, task="Finding points again")
        near = search.converged & ((search.x - x[rows]).norm(dim=1) <= reach)
        kept = examine(second, search.x, sigma).index == index
        arrived[rows] = near.cpu() & kept
        there[rows] = search.x
    hard = ~arrived if followed is None else ~arrived & (before.index <= followed)
    rest = hard.nonzero()[:, 0]
    if len(rest):
        there[rest], arrived[rest], fold[rest] = _homotopy(
            first, second, before.x[rest], sigma, unit
        )
    distance = torch.cdist(there.cpu(), second.flat(after.x).cpu())
    distance[~arrived] = torch.inf
    partner = _matched(distance, 10 * merging_radius(second))
    found = partner >= 0
    moved, indices = _nan(len(x)), torch.full((len(x), 2), -1)
    moved[found] = (after.x[partner[found]] - before.x[found]).flatten(1).norm(dim=1)
    indices[:, 0], indices[found, 1] = before.index, after.index[partner[found]]
    taken = set(partner.tolist())
    new = torch.tensor([k for k in range(len(after)) if k not in taken], dtype=torch.int64)
    return Step(partner, moved, indices, fold, new)


def _homotopy(
    first: Surface, second: Surface, x: Tensor, sigma: float, unit: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Ends of the branches from x (n, \\*shape): states, whether at t = 1, t of the first fold."""
    system = CriticalSystem(Homotopy(first, second, sigma), unit)
    z = start(system, x, torch.zeros(len(x), dtype=torch.float64))
    ahead = torch.zeros_like(z)
    ahead[:, -1] = 1.0
    curves = follow(system, z, ahead, (0.0, 1.0), longest=0.1, task="Following points")
    ends = torch.stack([curve.z[-1] for curve in curves])
    arrived = torch.tensor(
        [c.end == "bound" and float(c.z[-1, -1]) > 0.5 for c in curves], dtype=torch.bool
    )
    fold = _nan(len(x))
    for k, curve in enumerate(curves):
        turned = (curve.tangent[:-1, -1] > 0) & (curve.tangent[1:, -1] < 0)
        if bool(turned.any()):
            fold[k] = float(curve.z[: int(turned.nonzero()[0]) + 2, -1].max())
    return system.state(ends), arrived, fold


def _matched(distance: Tensor, radius: float) -> Tensor:
    """Partners of n rows among m columns, each once, the sum of distances least; −1 for none."""
    partner = torch.full((len(distance),), -1)
    rows, columns = linear_sum_assignment(distance.clamp(max=1e3 * radius).numpy())
    for row, column in zip(rows, columns, strict=True):
        if float(distance[row, column]) <= radius:
            partner[row] = int(column)
    return partner


def _nan(count: int) -> Tensor:
    return torch.full((count,), torch.nan, dtype=torch.float64)
