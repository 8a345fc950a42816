"""How often each minimum is visited when white noise perturbs the flow, as its temperature falls.

    dx = −∇V dt + √(2T) dW,    p(x) ∝ exp(−V(x, σ)/T)

As T → 0 the share of a minimum tends to its Laplace weight, exp(−V_i/T) / √det ∇²V_i over the sum,
with a relative error of order T: the lowest minimum is left, or the widest of several of one depth.
At T = σ² the density is p_σ itself.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from energydiff.energies.base import Denoiser
from energydiff.errors import UserError
from energydiff.landscape.basins import basin_of
from energydiff.landscape.surface import Surface
from energydiff.progress import with_progress
from energydiff.random import PROBE, keyed_uniform
from energydiff.sampling.mala import MALA


@dataclass(frozen=True)
class Occupation:
    """Shares of n minima at each of M temperatures.

    Attributes:
        temperature: falling, (M,), units of V.
        share: of the recorded states in each basin, (M, n); a rest is in none.
        error: its standard error over independent chains, (M, n).
        laplace: Laplace weights, (M, n).
        exchanged: share of the exchanges with the next temperature that were accepted, (M − 1,).
            Near 0 a temperature is cut off from those above: put others between them.
    """

    temperature: Tensor
    share: Tensor
    error: Tensor
    laplace: Tensor
    exchanged: Tensor


def laplace_weights(
    surface: Surface, minima: Tensor, sigma: float, temperatures: Sequence[float] | Tensor
) -> Tensor:
    """exp(−V_i/T)/√det ∇²V_i over their sum, (M, n), of minima (n, d).

    Raises:
        UserError: one of them is no minimum.
    """
    values = torch.linalg.eigvalsh(surface.hessian(minima, sigma))
    if not bool((values > 0).all()):
        raise UserError(f"Laplace weights need minima; an eigenvalue is {float(values.min()):.3g}.")
    depth = surface.value(minima, sigma)
    inverse = 1 / torch.as_tensor(temperatures, dtype=torch.float64).to(depth)
    return (-inverse[:, None] * depth - 0.5 * values.log().sum(1)).softmax(1).cpu()


def occupation(
    model: Denoiser,
    minima: Tensor,
    sigma: float,
    temperatures: Sequence[float] | Tensor,
    *,
    step_size: float = 0.3,
    moves: int = 10,
    burn_in: int = 100,
    records: int = 40,
    chains: int = 128,
    seed: int = 0,
) -> Occupation:
    """Shares of minima (n, \\*shape) by MALA at each temperature, with replica exchange.

    Each chain is a ladder of M states, one at each temperature; after a round of moves neighbours
    on it exchange their states by Metropolis's rule (Hukushima & Nemoto 1996), so that the cold
    ones cross barriers while they are hot. Ladders start in the minima, in equal numbers.

    Args:
        temperatures: M of them, units of V; the highest of the size of the barriers.
        step_size: dt of the flow; curvatures of V are 1 at most, for an exact energy.
        moves: of MALA between exchanges.
        burn_in: rounds before the first record.
        records: rounds recorded.
    """
    levels = torch.as_tensor(temperatures, dtype=torch.float64).flatten().sort(descending=True)[0]
    if not len(levels) or not levels[-1] > 0 or not step_size > 0 or chains < 2 or records < 1:
        raise UserError(
            "occupation needs positive temperatures and step_size, two chains and a record, got"
            f" {levels.tolist()}, {step_size}, {chains} and {records}."
        )
    surface = Surface(model)
    low = surface.flat(minima)
    x = low[torch.arange(chains, device=low.device) % len(low)].expand(len(levels), -1, -1).clone()
    kept, accepted = [], torch.zeros(burn_in + records, len(levels) - 1, dtype=torch.float64)
    for number in with_progress(range(burn_in + records), burn_in + records, "Langevin dynamics"):
        seeds = [chains * ((burn_in + records) * seed + number) + i for i in range(chains)]
        for i, level in enumerate(levels.tolist()):
            scale = level / sigma**2  # of E: the temperature of MALA itself is σ²
            chain = MALA(sigma, updates=moves, step_size=step_size * scale)
            moved = chain(surface.energy / scale, surface.shaped(x[i]), seeds=seeds, trace=False)
            x[i] = surface.flat(moved.samples)
            seeds = [s + (1 << 40) for s in seeds]
        accepted[number] = _exchange(surface, x, sigma, levels, seeds)
        if number >= burn_in:
            kept.append(x.clone())
    states = torch.stack(kept).flatten(0, 2)
    where = basin_of(surface, states, sigma, low).view(records, len(levels), chains, 1)
    shown = (where == torch.arange(len(low))).double().mean(0)  # (M, chains, n)
    return Occupation(
        levels,
        shown.mean(1),
        shown.std(1) / math.sqrt(chains),
        laplace_weights(surface, low, sigma, levels),
        accepted[burn_in:].mean(0),
    )


def _exchange(
    surface: Surface, x: Tensor, sigma: float, levels: Tensor, seeds: list[int]
) -> Tensor:
    """Neighbours of x (M, chains, d) change places, the hottest pair first; share that did."""
    value = torch.stack([surface.value(states, sigma) for states in x])
    uniform = keyed_uniform(0, seeds, len(levels), PROBE).to(value).log()
    shares = torch.zeros(len(levels) - 1, dtype=torch.float64)
    for i, (hot, cold) in enumerate(itertools.pairwise(levels.tolist())):
        swap = uniform[:, i] < (1 / cold - 1 / hot) * (value[i + 1] - value[i])
        for pair in (x[i : i + 2], value[i : i + 2]):
            pair[:, swap] = pair[:, swap].flip(0)
        shares[i] = swap.double().mean().cpu()
    return shares
