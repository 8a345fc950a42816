"""Noise grids: exact ends, always falling, and Karras et al. 2022, eq. 5."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from energydiff.errors import UserError
from energydiff.sampling import geometric_sigmas, given_sigmas, karras_sigmas, linear_sigmas

Grid = Callable[..., Tensor]
every_grid = pytest.mark.parametrize("grid", [karras_sigmas, geometric_sigmas, linear_sigmas])
lows = st.floats(1e-3, 1)
ratios = st.floats(1.5, 1e4)
counts = st.integers(1, 100)


@every_grid
@given(counts, lows, ratios)
def test_the_ends_are_exact(grid: Grid, steps: int, low: float, ratio: float) -> None:
    sigmas = grid(steps, low, low * ratio)
    assert (sigmas[0].item(), sigmas[-1].item()) == (low * ratio, low)


@every_grid
@given(counts, lows, ratios)
def test_it_falls_at_every_step(grid: Grid, steps: int, low: float, ratio: float) -> None:
    sigmas = grid(steps, low, low * ratio)
    assert sigmas.shape == (steps + 1,) and bool((sigmas.diff() < 0).all())


@given(st.integers(2, 50), st.floats(1, 10))
def test_karras_grids_follow_their_formula(steps: int, rho: float) -> None:
    """σ_i = (σ_max^(1/ρ) + i/N (σ_min^(1/ρ) − σ_max^(1/ρ)))^ρ."""
    high, low = 10 ** (1 / rho), 0.02 ** (1 / rho)
    expected = [(high + i / steps * (low - high)) ** rho for i in range(steps + 1)]
    sigmas = karras_sigmas(steps, 0.02, 10.0, rho)
    assert_close(sigmas, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=0)


def test_geometric_grids_have_equal_ratios() -> None:
    sigmas = geometric_sigmas(9, 0.02, 10.0)
    ratio = torch.full((9,), (0.02 / 10.0) ** (1 / 9), dtype=torch.float64)
    assert_close(sigmas[1:] / sigmas[:-1], ratio, rtol=1e-12, atol=0)


def test_linear_grids_have_equal_differences() -> None:
    expected = torch.full((9,), -(10.0 - 0.1) / 9, dtype=torch.float64)
    assert_close(linear_sigmas(9, 0.1, 10.0).diff(), expected, rtol=1e-12, atol=0)


@every_grid
@pytest.mark.parametrize(
    ("steps", "low", "high"),
    [(0, 0.1, 1.0), (5, 0.0, 1.0), (5, -1.0, 1.0), (5, 1.0, 1.0), (5, 2.0, 1.0), (5, 0.1, 1e999)],
)
def test_ends_that_make_no_grid_are_refused(
    grid: Grid, steps: int, low: float, high: float
) -> None:
    with pytest.raises(UserError):
        grid(steps, low, high)


@pytest.mark.parametrize("rho", [0.0, -1.0, float("nan")])
def test_rho_must_be_positive(rho: float) -> None:
    with pytest.raises(UserError, match="rho"):
        karras_sigmas(5, 0.1, 1.0, rho)


def test_a_given_grid_is_kept() -> None:
    assert given_sigmas([3.0, 1.0, 0.5]).tolist() == [3.0, 1.0, 0.5]


@pytest.mark.parametrize(
    "sigmas",
    [
        [1.0],
        [],
        [[2.0, 1.0]],
        [1.0, 2.0],
        [1.0, 1.0],
        [1.0, 0.0],
        [1e999, 1.0],
        [1.0, float("nan")],
    ],
)
def test_a_given_grid_that_does_not_fall_is_refused(sigmas: list[float]) -> None:
    with pytest.raises(UserError):
        given_sigmas(sigmas)
