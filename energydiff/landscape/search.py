"""Searches for critical points, all states of a batch at once, on Hessian-vector products.

Minima: x ← D(x, σ), which never raises the V of an exact energy, then Newton. Saddles of index k:
Newton in a Krylov space that holds the k softest modes, uphill along those and downhill along all
others (eigenvector following: Cerjan & Miller 1981; on Krylov spaces, Munro & Wales 1999; with
k = 0 the saddle-free Newton of Dauphin et al. 2014). A step is trusted as far as the quadratic
model has been right about the slope.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from energydiff.energies.base import sigma_vector
from energydiff.landscape.lanczos import krylov
from energydiff.landscape.surface import Surface
from energydiff.progress import progress
from energydiff.random import PROBE, keyed_normal

KRYLOV = 16  # dimension: with fewer, exact Hessians


@dataclass(frozen=True)
class Found:
    """Where searches ended.

    Attributes:
        x: (B, d).
        converged: ‖∇V‖ ≤ tolerance √d, (B,).
        steps: Newton steps taken, (B,).
    """

    x: Tensor
    converged: Tensor
    steps: Tensor


def descend(
    surface: Surface,
    x: Tensor,
    sigma: float | Tensor,
    *,
    steps: int = 200,
    tolerance: float = 1e-3,
    eta: float = 1.0,
) -> Tensor:
    """x ← x − η∇V = (1 − η) x + η D(x, σ) until ‖∇V‖ ≤ tolerance √d, (B, d).

    A state whose V would rise beyond rounding has its own η halved: a learned energy may need it.
    """
    x, levels, rounding = x.clone(), sigma_vector(sigma, x), 100 * torch.finfo(x.dtype).eps
    rate = torch.full_like(levels, eta)
    value, slope = surface.gradient(x, levels)
    going = slope.norm(dim=1) > tolerance * surface.dim**0.5
    for _ in range(steps):
        rows = going.nonzero()[:, 0]
        if not len(rows):
            break
        trial = x[rows] - rate[rows, None] * slope[rows]
        there, gradient = surface.gradient(trial, levels[rows])
        rose = there > value[rows] + rounding * value[rows].abs().clamp(min=1)
        rate[rows[rose]] *= 0.5
        taken = rows[~rose]
        x[taken], value[taken], slope[taken] = trial[~rose], there[~rose], gradient[~rose]
        going[taken] = slope[taken].norm(dim=1) > tolerance * surface.dim**0.5
        going &= rate > 1e-6
    return x


def newton(
    surface: Surface,
    x: Tensor,
    sigma: float | Tensor,
    index: int | None = 0,
    *,
    steps: int = 60,
    tolerance: float = 1e-9,
    radius: float | None = None,
    modes: Tensor | None = None,
    known: Tensor | None = None,
    task: str = "Searching",
) -> Found:
    """From every state x (B, d) to a critical point.

    Args:
        index: of the point sought; ``None`` takes Newton's own step, to whichever is near. What is
            found may have another: look at its eigenvalues.
        radius: longest step, units of x; a quarter of σ√d if not given.
        modes: guesses of the ``index`` softest modes, (B, index, d); random if not given.
        known: points (n, d) that repel, so that Newton finds others (deflation: Farrell et al.
            2015; of Newton's step only the length and the sign change).
        task: what the progress line says.
    """
    x, levels = x.clone(), sigma_vector(sigma, x)
    longest = (
        0.25 * levels * surface.dim**0.5 if radius is None else torch.full_like(levels, radius)
    )
    trust, taken = 0.5 * longest, torch.zeros(len(x), dtype=torch.int64, device=x.device)
    if modes is None:
        modes = keyed_normal(0, range(len(x)), (index or 0, surface.dim), PROBE).to(x)
    modes = modes.clone()
    value, slope = surface.gradient(x, levels)
    threshold = tolerance * surface.dim**0.5
    going = slope.norm(dim=1) > threshold
    with progress(task, len(x)) as tell:
        for _ in range(steps):
            rows = going.nonzero()[:, 0]
            if not len(rows):
                break
            tell(len(x) - len(rows))
            at, here = levels[rows], x[rows]
            step, change, soft = _step(surface, here, at, slope[rows], modes[rows], index)
            if known is not None:
                step, change = _deflated(here, step, change, known)
            scale = (trust[rows] / step.norm(dim=1).clamp(min=torch.finfo(x.dtype).tiny)).clamp(
                max=1.0
            )[:, None]
            step, change = scale * step, scale * change
            there, gradient = surface.gradient(here + step, at)
            small = gradient.norm(dim=1) <= 1e-6 * surface.dim**0.5  # where rounding is the error
            ratio = _agreement(index, step, change, slope[rows], gradient, there - value[rows])
            good = (ratio > -1.0 if index else ratio > 0.0) | small
            grown = torch.where(ratio > 0.5, 2.0, torch.where(ratio < 0.1, 0.5, 1.0))
            trust[rows] = torch.minimum(trust[rows] * torch.where(good, grown, 0.25), longest[rows])
            modes[rows], moved = soft, rows[good]
            x[moved], value[moved] = (here + step)[good], there[good]
            slope[moved] = gradient[good]
            taken[rows] += 1
            going[rows] = (slope[rows].norm(dim=1) > threshold) & (trust[rows] > 1e-12)
            going &= x.isfinite().all(1)
    return Found(x, slope.norm(dim=1) <= threshold, taken)


def _step(
    surface: Surface, x: Tensor, sigma: Tensor, slope: Tensor, modes: Tensor, index: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The step, ∇²V times it, and the soft modes for the next, (B, d), (B, d), (B, index, d)."""
    if surface.dim <= KRYLOV:
        basis = torch.eye(surface.dim).to(x).expand(len(x), -1, -1)
        images = surface.hessian(x, sigma)
        values, vectors = torch.linalg.eigh(images)
    else:
        start = torch.cat([slope[:, None], modes], 1)
        space = krylov(surface.product(x, sigma), start, KRYLOV)
        basis, images, values, vectors = space.basis, space.images, space.values, space.vectors
    bend = values
    if index is not None:
        bend = values.abs()
        bend[:, :index] *= -1
    floor = torch.finfo(values.dtype).eps * values.abs().amax(1, keepdim=True)
    bend = torch.where(bend < 0, -1.0, 1.0) * bend.abs().maximum(floor)
    along = torch.einsum("bij,bki,bk->bj", vectors, basis.mT, slope)
    part = torch.einsum("bij,bj->bi", vectors, -along / bend)
    step = torch.einsum("bi,bid->bd", part, basis)
    change = torch.einsum("bi,bid->bd", part, images)
    return step, change, vectors[:, :, : index or 0].mT @ basis


def _agreement(
    index: int | None, step: Tensor, change: Tensor, slope: Tensor, there: Tensor, fell: Tensor
) -> Tensor:
    """How well the quadratic model foretold a step, (B,); 1 is perfect.

    Towards a minimum by the share of the fall of V that came true; towards others, where V may
    rise, by the error of the slope over its change.
    """
    if index == 0:
        return fell / ((slope + 0.5 * change) * step).sum(1)
    return 1 - (there - slope - change).norm(dim=1) / change.norm(dim=1).clamp(
        min=torch.finfo(step.dtype).tiny
    )


def _deflated(x: Tensor, step: Tensor, change: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Newton's step on M(x)∇V with M = Π (1 + 1/‖x − r‖²): s/(1 − ⟨∇log M, s⟩) (Farrell et al.
    2015, by Sherman and Morrison)."""
    away = x[:, None] - known
    squared = away.square().sum(2, keepdim=True).clamp(min=1e-12)
    push = (-2 * away / (squared * (squared + 1))).sum(1)
    factor = 1 - (push * step).sum(1, keepdim=True)
    factor = torch.where(factor < 0, -1.0, 1.0) * factor.abs().clamp(min=1e-3)
    return step / factor, change / factor
