"""Noise grids: σ_0 > σ_1 > … > σ_N = σ_min > 0, as (steps + 1,) float64 tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor

from energydiff.energies import NoiseRange
from energydiff.errors import UserError


def karras_sigmas(
    steps: int, sigma_min: float = 0.02, sigma_max: float = 80.0, rho: float = 7.0
) -> Tensor:
    """Linear in σ^(1/ρ) (Karras et al. 2022, eq. 5): short steps at low noise."""
    _check(steps, sigma_min, sigma_max)
    if not rho > 0:
        raise UserError(f"rho must be positive, got {rho}.")
    ramp = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return _exact_ends((high + ramp * (low - high)) ** rho, sigma_min, sigma_max)


def geometric_sigmas(steps: int, sigma_min: float = 0.02, sigma_max: float = 80.0) -> Tensor:
    """Equal ratios (Song & Ermon 2019): every Euler step has the same step size η = 1 − σ'/σ."""
    _check(steps, sigma_min, sigma_max)
    low, high = torch.tensor([sigma_min, sigma_max], dtype=torch.float64).log().tolist()
    ramp = torch.linspace(high, low, steps + 1, dtype=torch.float64)
    return _exact_ends(ramp.exp(), sigma_min, sigma_max)


def linear_sigmas(steps: int, sigma_min: float = 0.02, sigma_max: float = 80.0) -> Tensor:
    """Equal differences."""
    _check(steps, sigma_min, sigma_max)
    return torch.linspace(sigma_max, sigma_min, steps + 1, dtype=torch.float64)


def given_sigmas(sigmas: Sequence[float] | Tensor, *, repeats: bool = False) -> Tensor:
    """Your own grid, checked: at least two levels, strictly falling, all positive and finite.

    With ``repeats`` a level may stand there several times, for several moves.
    """
    grid = torch.as_tensor(sigmas, dtype=torch.float64).detach().cpu()
    if grid.ndim != 1 or len(grid) < 2:
        raise UserError("a noise grid needs at least two levels in one dimension.")
    steps = grid.diff()
    falls = steps <= 0 if repeats else steps < 0
    if not bool(torch.isfinite(grid).all() and (grid > 0).all() and falls.all()):
        raise UserError(
            "a noise grid must fall strictly and stay positive and finite, got"
            f" {[round(s, 6) for s in grid.tolist()]}."
        )
    return grid


def level_grid(sigmas: float | Sequence[float] | Tensor, moves: int) -> Tensor:
    """Every level of a grid, or one level, ``moves`` times, and the last once more."""
    if isinstance(sigmas, int | float):
        if not 0 < sigmas < float("inf"):
            raise UserError(f"sigma must be positive and finite, got {sigmas}.")
        levels = torch.tensor([sigmas], dtype=torch.float64)
    else:
        levels = given_sigmas(sigmas)
    return torch.cat([levels.repeat_interleave(moves), levels[-1:]])


def _exact_ends(grid: Tensor, sigma_min: float, sigma_max: float) -> Tensor:
    grid[0], grid[-1] = sigma_max, sigma_min
    return grid


def _check(steps: int, sigma_min: float, sigma_max: float) -> None:
    if steps < 1:
        raise UserError(f"steps must be at least 1, got {steps}.")
    NoiseRange(sigma_min, sigma_max)  # which refuses what is none
