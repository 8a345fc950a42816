"""Blocks on tokens: their pullbacks are the transposed Jacobians, alone and as a trunk."""

import pytest
import torch
from torch.testing import assert_close

from energydiff.errors import UserError
from energydiff.potentials.token_blocks import rms_norm, rms_norm_pullback, token_block
from energydiff.potentials.tokens import Trunk

WIDTH, GRID = 6, (2, 3)
BLOCKS = ("convolution", "feedforward", "attention")


def tokens() -> torch.Tensor:
    return torch.randn(2, 6, WIDTH, dtype=torch.float64)


def conditioning(sizes: list[int]) -> list[torch.Tensor]:
    return [torch.randn(2, n, dtype=torch.float64) for n in sizes]


def test_the_pullback_of_the_rms_norm_is_autograds() -> None:
    h, grad = tokens().requires_grad_(), tokens()
    y, r = rms_norm(h)
    (expected,) = torch.autograd.grad(y, h, grad)
    assert_close(rms_norm_pullback(grad, y, r), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", BLOCKS)
def test_the_pullback_of_a_block_is_autograds(name: str) -> None:
    block = token_block(name, WIDTH, GRID, heads=2, hidden=5).double()
    y, grad = tokens().requires_grad_(), tokens()
    update, saved = block(y, *conditioning([block.size]))
    (expected,) = torch.autograd.grad(update, y, grad, retain_graph=True)
    assert_close(block.pullback(grad, saved), expected, rtol=1e-12, atol=1e-14)


def test_the_pullback_of_a_trunk_is_autograds() -> None:
    trunk = Trunk(BLOCKS * 2, WIDTH, GRID, heads=2, hidden=5).double()
    t, grad = tokens().requires_grad_(), tokens()
    h, saved = trunk(t, conditioning(trunk.sizes))
    (expected,) = torch.autograd.grad(h, t, grad, retain_graph=True)
    assert_close(trunk.pullback(grad, saved), expected, rtol=1e-12, atol=1e-14)


def test_a_convolution_mixes_neighbours_on_the_grid_alone() -> None:
    block = token_block("convolution", WIDTH, (3, 3), heads=1, hidden=1).double()
    y = torch.zeros(1, 9, WIDTH, dtype=torch.float64)
    y[:, 0] = 1.0  # the corner
    update = block(y, torch.empty(0))[0]
    touched = update.abs().sum(-1)[0] > 0
    assert touched.tolist() == [True, True, False, True, True, False, False, False, False]


def test_an_unknown_block_is_named_with_what_there_is() -> None:
    with pytest.raises(UserError, match="'mlp': choose convolution, feedforward or attention"):
        token_block("mlp", WIDTH, GRID, heads=2, hidden=5)
