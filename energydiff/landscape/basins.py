"""Basins of attraction: how much noise a point survives, and how much room it has at one noise.

Across noise: a point is noised to σ and brought back deterministically; the largest σ from which
it still returns is its critical noise. At one σ: which minimum the descent −∇V leads to, and the
volume of that basin, by where random rays leave it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from scipy.special import gammaln
from torch import Tensor

from energydiff.energies.base import Denoiser
from energydiff.errors import UserError
from energydiff.landscape.critical import nearest
from energydiff.landscape.search import descend
from energydiff.landscape.surface import Surface
from energydiff.memory.base import Memory
from energydiff.progress import progress
from energydiff.random import PROBE, keyed_normal
from energydiff.sampling.grids import karras_sigmas
from energydiff.sampling.heun import Heun

ETA = 0.2  # of a descent that has to stay in the basin of the flow


@dataclass(frozen=True)
class Recovery:
    """How many of the trials returned to each of n points from each of S noise levels.

    Attributes:
        sigma: levels, rising, (S,).
        returned: trials that came back within δ, (S, n).
        trials: of each point and level.
        length: mean ‖x_σ − x‖ / σ over the trials of each point, (n,); about √d.
    """

    sigma: Tensor
    returned: Tensor
    trials: int
    length: Tensor

    @property
    def share(self) -> Tensor:
        """Of the trials, (S, n)."""
        return self.returned / self.trials

    @property
    def curve(self) -> Tensor:
        """Share recovered of all points with its 95 % Wilson interval: mean, low, high, (3, S)."""
        trials = self.trials * self.returned.shape[1]
        return torch.stack([self.share.mean(1), *wilson(self.returned.sum(1), trials)])

    def critical_noise(self, share: float = 0.9) -> Tensor:
        """Largest level at which at least this share returned, (n,); 0 where none is."""
        return torch.where(self.share >= share, self.sigma[:, None], 0.0).amax(0)

    def radius(self, share: float = 0.9) -> Tensor:
        """Mean ‖x_σc − x‖ at the critical noise, (n,), units of x."""
        return self.critical_noise(share) * self.length


def recovery(
    model: Denoiser,
    points: Tensor,
    sigmas: Sequence[float] | Tensor,
    *,
    delta: float,
    rest: Callable[[Tensor], Tensor] | None = None,
    trials: int = 10,
    steps: int = 18,
    sigma_min: float | None = None,
    seed: int = 0,
    chunk: int = 1024,
) -> Recovery:
    """Noise points (n, \\*shape) to each σ, bring them back, and see which return within δ.

    Back by Heun's method on a Karras grid down to ``sigma_min``, at last to D(x, σ_min); of a
    memory by its own update until it rests. A trial has the same noise ε at every σ.

    Args:
        sigmas: S noise levels above ``sigma_min``.
        delta: δ, units of x: much less than the distance between points.
        rest: what is done with a state (B, \\*shape) that is back before it is compared, as the
            descent at the noise of which the points are minima.
        steps: of Heun's method from any level.
        sigma_min: the lowest noise of the model where it is not given; a closed form needs it.
        chunk: trajectories at a time.
    """
    levels = torch.as_tensor(sigmas, dtype=torch.float64).flatten().sort().values
    memory = isinstance(model, Memory)
    lowest = 0.0 if memory else (sigma_min or model.require_noise().sigma_min)
    if not len(levels) or not levels[0] > lowest or not delta > 0 or trials < 1:
        raise UserError(
            f"recovery needs levels above {lowest:g}, delta > 0 and trials >= 1, got"
            f" {levels.tolist()}, {delta} and {trials}."
        )
    count = len(points)
    returned = torch.zeros(len(levels), count, dtype=torch.int64)
    length = torch.zeros(count, dtype=torch.float64)
    with progress("Noising and recovering", len(levels) * count * trials) as tell:
        for rows in torch.arange(count * trials, device=points.device).split(chunk):
            clean = points[rows // trials]
            noise = keyed_normal(seed, rows, tuple(points.shape[1:]), PROBE, points.dtype)
            owner = (rows // trials).cpu()
            length.index_add_(0, owner, noise.flatten(1).norm(dim=1).cpu().double() / trials)
            for i, sigma in enumerate(levels.tolist()):
                back = _brought_back(model, clean + sigma * noise, sigma, lowest, steps)
                back = back if rest is None else rest(back)
                hit = (back - clean).flatten(1).norm(dim=1) <= delta
                returned[i].index_add_(0, owner, hit.cpu().long())
                tell(len(levels) * int(rows[0]) + (i + 1) * len(rows))
    return Recovery(levels, returned, trials, length)


def _brought_back(model: Denoiser, x: Tensor, sigma: float, lowest: float, steps: int) -> Tensor:
    if isinstance(model, Memory):
        return model.retrieve(x, steps=1000).samples
    sampler = Heun(karras_sigmas(steps, lowest, sigma), final_denoise=True)
    return sampler(model, x, trace=False).samples


def wilson(successes: Tensor, trials: int | Tensor, z: float = 1.959964) -> tuple[Tensor, Tensor]:
    """Ends of the interval of a share (Wilson 1927), 95 % by default, like ``successes``."""
    share, width = successes / trials, z**2 / torch.as_tensor(trials)
    centre = (share + width / 2) / (1 + width)
    reach = (share * (1 - share) * width + width**2 / 4).sqrt() / (1 + width)
    return (centre - reach).clamp(min=0), (centre + reach).clamp(max=1)


def basin_of(
    surface: Surface,
    x: Tensor,
    sigma: float,
    minima: Tensor,
    *,
    eta: float = ETA,
    steps: int = 1000,
) -> Tensor:
    """Number of the minimum (of n, (n, d)) that steepest descent from x (B, d) ends at, (B,).

    −1 where it rests elsewhere: further from all of them than a quarter of the least distance
    between two (σ, if there is one alone).
    """
    coarse = surface.coarse
    minima = coarse.flat(minima)
    reach = sigma if len(minima) < 2 else 0.25 * float(torch.pdist(minima).amin())
    low = descend(
        coarse, coarse.flat(x), sigma, eta=eta, steps=steps, tolerance=1e-3 * min(1.0, reach)
    )
    distance, number = nearest(low, minima)
    return torch.where(distance <= reach, number, -1)


def basin_map(
    surface: Surface,
    sigma: float,
    minima: Tensor,
    *,
    low: float,
    high: float,
    size: int = 101,
    plane: Tensor | None = None,
) -> Tensor:
    """Which minimum each pixel of a square descends to, (size, size); rows run along the second
    axis from ``low`` up.

    Args:
        minima: (n, d).
        plane: origin and two axes, (3, d), of the plane that the pixels are in; may be left out
            in two dimensions.
    """
    if plane is None:
        if surface.dim != 2:
            raise UserError(f"a map of basins in {surface.dim} dimensions needs a plane.")
        plane = torch.cat([torch.zeros(1, 2), torch.eye(2)])
    ticks = torch.linspace(low, high, size, dtype=torch.float64, device=surface.device)
    origin, *axes = plane.to(ticks)
    x = origin + ticks[None, :, None] * axes[0] + ticks[:, None, None] * axes[1]
    return basin_of(surface, x.flatten(0, 1), sigma, minima).view(size, size)


@dataclass(frozen=True)
class Volume:
    """A basin's volume by its exits along random rays.

    Attributes:
        radius: where the rays leave it, (rays,), units of x; at most ``longest``.
        capped: share of the rays that reach ``longest`` inside.
        log_volume: log V_d + log mean r^d, V_d the volume of the unit ball.
        error: standard error of it; no guide where few rays hold most of the volume.
    """

    radius: Tensor
    capped: float
    log_volume: float
    error: float


def basin_volume(
    surface: Surface,
    sigma: float,
    minima: Tensor,
    number: int,
    *,
    longest: float,
    rays: int = 256,
    bisections: int = 12,
    seed: int = 0,
) -> Volume:
    """Volume of the basin of minimum ``number``, as far as ``longest`` from it.

    Assumes that the basin is star-shaped about its minimum: every ray leaves it once. Where
    one does not, bisection finds one of its exits.

    Args:
        minima: all of them, (n, d): what is not among them counts as outside.
        longest: where unbounded basins are cut off, units of x.
    """
    centre, dim = minima[number], surface.dim
    u = keyed_normal(seed, range(rays), (dim,), PROBE, torch.float64).to(centre)
    u = u / u.norm(dim=1, keepdim=True)

    def inside(radius: Tensor) -> Tensor:
        ends = basin_of(surface, centre + radius[:, None] * u, sigma, minima)
        return (ends == number).to(u.device)

    high = torch.full((rays,), longest, dtype=u.dtype, device=u.device)
    whole = inside(high)
    low = torch.where(whole, high, 0.0)
    for _ in range(bisections):
        middle = 0.5 * (low + high)
        within = whole | inside(middle)
        low, high = torch.where(within, middle, low), torch.where(within, high, middle)
    radius = 0.5 * (low + high)
    power = dim * radius.log()
    mean = power.logsumexp(0) - math.log(rays)
    relative = (power - mean).exp()  # r^d over its mean
    unit = 0.5 * dim * math.log(math.pi) - float(gammaln(0.5 * dim + 1))
    return Volume(
        radius.cpu(),
        float(whole.double().mean()),
        unit + float(mean),
        float(relative.std()) / math.sqrt(rays),
    )
