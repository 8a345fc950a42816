"""Solution curves of n equations in n + 1 unknowns, many curves at once.

Predictor along the tangent, corrector by Gauss–Newton with the Moore–Penrose inverse of the
n × (n + 1) Jacobian (Allgower & Georg 2003, chs. 3, 6; as in MATCONT, Dhooge et al. 2003), which
passes folds as any other point. Each curve has a step length of its own.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.optimize import brentq
from torch import Tensor

from energydiff.progress import progress

ITERATIONS = 8  # of the corrector
LONG = 10.0  # a correction longer than this is given up
TURN = 0.9  # least cosine between the tangents at both ends of a step


class Jacobian(ABC):
    """J (n × (n + 1)) at each of B points."""

    @abstractmethod
    def apply(self, v: Tensor) -> Tensor:
        """J v, (B, n + 1) to (B, n)."""

    @abstractmethod
    def solve(self, r: Tensor, fixed: Tensor | None = None) -> Tensor:
        """J⁺ r, (B, n) to (B, n + 1): the shortest v with J v = r, among those ⟂ ``fixed``."""

    def kernel(self, near: Tensor) -> Tensor:
        """Unit vectors of the kernel, (B, n + 1), what is left of ``near`` in it."""
        rest = near - self.solve(self.apply(near))
        return rest / rest.norm(dim=1, keepdim=True)


class Dense(Jacobian):
    """From the matrices (B, n, n + 1)."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    def apply(self, v: Tensor) -> Tensor:
        return torch.einsum("bij,bj->bi", self.matrix, v)

    def solve(self, r: Tensor, fixed: Tensor | None = None) -> Tensor:
        matrix = self.matrix
        if fixed is not None:
            matrix = matrix - self.apply(fixed)[:, :, None] * fixed[:, None]
        # At a branch point the smallest singular value is 0, and its direction is left alone.
        return torch.einsum("bij,bj->bi", torch.linalg.pinv(matrix, atol=1e-11, rtol=1e-9), r)


class Products(Jacobian):
    """From v ↦ H v, symmetric (n × n), and the last column c (B, n) of J = [H, c], by conjugate
    gradients on J Jᵀ (Craig 1955)."""

    def __init__(self, product: Callable[[Tensor], Tensor], column: Tensor) -> None:
        self.product, self.column = product, column

    def apply(self, v: Tensor) -> Tensor:
        return self.product(v[:, :-1].contiguous()) + v[:, -1:] * self.column

    def solve(self, r: Tensor, fixed: Tensor | None = None) -> Tensor:
        def adjoint(w: Tensor) -> Tensor:
            v = torch.cat([self.product(w), (self.column * w).sum(1, keepdim=True)], 1)
            return v if fixed is None else v - (fixed * v).sum(1, keepdim=True) * fixed

        v = torch.zeros_like(torch.cat([r, r[:, :1]], 1))
        rest, step = r.clone(), r.clone()
        squared = rest.square().sum(1)
        enough = 1e-20 * squared
        for _ in range(2 * r.shape[1]):
            going = squared > enough
            if not bool(going.any()):
                break
            along = adjoint(step)
            rate = torch.where(going, squared / along.square().sum(1), 0.0)
            v = v + rate[:, None] * along
            rest = rest - rate[:, None] * self.apply(along)
            before, squared = squared, rest.square().sum(1)
            step = rest + torch.where(going, squared / before, 0.0)[:, None] * step
        return v


class System(ABC):
    """n equations r(z) = 0 in z (n + 1,), the last of which is the parameter."""

    @abstractmethod
    def residual(self, z: Tensor) -> Tensor:
        """r, (B, n + 1) to (B, n)."""

    @abstractmethod
    def jacobian(self, z: Tensor) -> Jacobian:
        """∂r/∂z."""

    @abstractmethod
    def record(self, z: Tensor, jacobian: Jacobian) -> Tensor:
        """Numbers that are kept of each point, (B, k)."""

    def orientation(self, record: Tensor, tangent: Tensor) -> Tensor:
        """A sign (B,) that changes along a curve at branch points only, crossed in short steps."""
        return torch.ones(len(record))


@dataclass(frozen=True)
class Curve:
    """m points of one curve, from its start on.

    Attributes:
        z: (m, n + 1).
        tangent: unit vectors, in the direction of the curve, (m, n + 1).
        record: what the system keeps of each point, (m, k).
        end: why it ends: "bound" of the parameter, "length", "closed" or "stuck".
        joint: number of the step that leads through the branch point it was started from.
    """

    z: Tensor
    tangent: Tensor
    record: Tensor
    end: str
    joint: int | None = None

    def __len__(self) -> int:
        return len(self.z)

    def between(self, i: int, u: float) -> Tensor:
        """Hermite's cubic from point i, u = 0, to the next, u = 1: (n + 1,), not corrected."""
        (a, b), (p, q) = self.z[i : i + 2], self.tangent[i : i + 2]
        bend = u * (1 - u) * (b - a).norm() * ((1 - u) * p - u * q)
        return a + u * u * (3 - 2 * u) * (b - a) + bend

    def at(self, i: int, parameter: float) -> Tensor:
        """Where that cubic takes a value that the parameter has between i and i + 1."""
        low, high = 0.0, 1.0
        rises = bool(self.z[i + 1, -1] > self.z[i, -1])
        for _ in range(40):
            middle = 0.5 * (low + high)
            if (float(self.between(i, middle)[-1]) < parameter) == rises:
                low = middle
            else:
                high = middle
        return self.between(i, low)

    def joined(self, ahead: "Curve", *, shared: bool = True) -> "Curve":
        """This one backwards and then another from the same place, whose first point is ``shared``
        or lies beyond a branch point."""
        first = int(shared)
        return Curve(
            torch.cat([self.z.flip(0), ahead.z[first:]]),
            torch.cat([-self.tangent.flip(0), ahead.tangent[first:]]),
            torch.cat([self.record.flip(0), ahead.record[first:]]),
            ahead.end,
            None if shared else len(self) - 1,
        )


def correct(
    system: System, z: Tensor, fixed: Tensor | None = None, tolerance: float = 1e-10
) -> tuple[Tensor, Tensor, Tensor]:
    """From z (B, n + 1) to the solution next to it, ⟂ ``fixed``: there, whether, iterations."""
    z, taken = z.clone(), torch.zeros(len(z), dtype=torch.int64)
    solved = torch.zeros(len(z), dtype=torch.bool)
    rows = torch.arange(len(z))
    for i in range(ITERATIONS + 1):
        r = system.residual(z[rows])
        solved[rows] = (r.norm(dim=1) <= tolerance).cpu()
        left = ((r.norm(dim=1) > tolerance) & r.isfinite().all(1)).cpu()
        rows, r = rows[left], r[left.to(r.device)]
        if not len(rows) or i == ITERATIONS:
            break
        step = system.jacobian(z[rows]).solve(r, None if fixed is None else fixed[rows])
        close = step.norm(dim=1) <= LONG
        rows = rows[close.cpu()]
        z[rows] -= step[close]
        taken[rows] += 1
    return z, solved, taken


def follow(
    system: System,
    z: Tensor,
    tangent: Tensor,
    bounds: tuple[float, float],
    *,
    longest: float,
    points: int = 400,
    tolerance: float = 1e-10,
    task: str = "Following branches",
) -> list[Curve]:
    """The curves through solutions z (B, n + 1), one way each: that of ``tangent`` (B, n + 1).

    Args:
        bounds: of the parameter; a curve that reaches one ends there.
        longest: step length, units of z.
        points: of each curve at most.
    """
    count, fine = len(z), longest / 16
    jacobian = system.jacobian(z)
    t, record = jacobian.kernel(tangent), system.record(z, jacobian)
    kept = [[(z[b], t[b], record[b])] for b in range(count)]
    ends = ["length"] * count
    step = torch.full((count,), longest / 4, dtype=z.dtype, device=z.device)
    rows = torch.arange(count)
    z, t, sign = z.clone(), t.clone(), system.orientation(record, t)
    with progress(task, count * points) as tell:
        while len(rows):
            tell(sum(map(len, kept)))
            ahead = z[rows] + step[rows, None] * t[rows]
            there, solved, taken = correct(system, ahead, tolerance=tolerance)
            jacobian = system.jacobian(there)
            turned = jacobian.kernel(t[rows])
            record = system.record(there, jacobian)
            now = system.orientation(record, turned)
            good = solved.to(z.device) & there.isfinite().all(1) & turned.isfinite().all(1)
            good &= (turned * t[rows]).sum(1) >= TURN
            good &= (there - ahead).norm(dim=1) <= 0.5 * step[rows]
            good &= (now == sign[rows]) | (step[rows] <= fine)
            quick = good & (taken.to(z.device) <= 3)
            going = torch.ones(len(rows), dtype=torch.bool)
            for k, b in enumerate(rows.tolist()):
                if not good[k]:
                    step[b] *= 0.5
                    going[k] = bool(step[b] > 1e-6 * longest)
                    ends[b] = "length" if going[k] else "stuck"
                    continue
                last = there[k], turned[k], record[k]
                outside = not bounds[0] <= float(last[0][-1]) <= bounds[1]
                if outside:
                    reached = _at_bound(system, z[b], t[b], last, bounds, tolerance)
                    kept[b] += [] if reached is None else [reached]
                    ends[b] = "stuck" if reached is None else "bound"
                elif _passes(kept[b], z[b], last):
                    kept[b].append(kept[b][0])
                    ends[b] = "closed"
                else:
                    kept[b].append(last)
                going[k] = ends[b] == "length" and len(kept[b]) < points
                z[b], t[b], sign[b] = last[0], last[1], now[k]
                step[b] = min(float(step[b]) * (1.5 if quick[k] else 0.8), longest)
            rows = rows[going]
    curves = []
    for points_kept, end in zip(kept, ends, strict=True):
        states, tangents, records = zip(*points_kept, strict=True)
        curves.append(Curve(torch.stack(states), torch.stack(tangents), torch.stack(records), end))
    return curves


def locate(
    system: System, curve: Curve, i: int, measure: Callable[[Tensor, Tensor], float]
) -> tuple[Tensor, Tensor]:
    """The point (n + 1,) between i and i + 1 where ``measure`` of point and tangent, of opposite
    sign at both, is 0, and its tangent."""
    p, q = curve.tangent[i : i + 2]

    def at(u: float) -> tuple[Tensor, Tensor]:
        z = correct(system, curve.between(i, u)[None])[0]
        return z[0], system.jacobian(z).kernel((p + u * (q - p))[None])[0]

    root = brentq(lambda u: measure(*at(u)), 0.0, 1.0, xtol=1e-10)
    return at(root)


def _at_bound(
    system: System,
    z: Tensor,
    tangent: Tensor,
    last: tuple[Tensor, Tensor, Tensor],
    bounds: tuple[float, float],
    tolerance: float,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """The point at the bound that lies between z and the ``last`` one, which is beyond it."""
    bound = min(max(float(last[0][-1]), bounds[0]), bounds[1])
    share = (bound - z[-1]) / (last[0][-1] - z[-1])
    guess, fixed = (z + share * (last[0] - z))[None], torch.zeros_like(z)[None]
    guess[:, -1], fixed[:, -1] = bound, 1.0
    there, solved, _ = correct(system, guess, fixed, tolerance)
    if not bool(solved):
        return None
    jacobian = system.jacobian(there)
    return there[0], jacobian.kernel(tangent[None])[0], system.record(there, jacobian)[0]


def _passes(kept: list[tuple[Tensor, Tensor, Tensor]], z: Tensor, last: tuple[Tensor, ...]) -> bool:
    """Whether the step from z to the last point passes the start of the curve."""
    if len(kept) < 4:
        return False
    start, tangent, _ = kept[0]
    before, after = (float(tangent @ (point - start)) for point in (z, last[0]))
    length = (last[0] - z).norm()
    close = (z - start).norm() <= 1.5 * length and bool(tangent @ last[1] > TURN)
    return close and before < 0 <= after
