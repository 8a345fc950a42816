"""Blocks on tokens: their pullbacks are the transposed Jacobians, alone and as a trunk."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from energydiff.errors import UserError
from energydiff.potentials.token_blocks import rms_norm, rms_norm_pullback, token_block
from energydiff.potentials.tokens import Trunk

WIDTH, GRID = 6, (2, 3)
BLOCKS = ("convolution", "feedforward", "attention")


def tokens() -> Tensor:
    return torch.randn(2, 6, WIDTH, dtype=torch.float64)


def conditioning(sizes: list[int]) -> list[Tensor]:
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
    (e,) = conditioning([block.size])
    update, saved = block(y, e.requires_grad_())
    expected = autograds(update, [y, e], grad)
    for mine, theirs in zip(block.pullback(grad, saved), expected, strict=True):
        assert_close(mine, theirs, rtol=1e-12, atol=1e-14)


def test_the_pullback_of_a_trunk_is_autograds() -> None:
    trunk = Trunk(BLOCKS * 2, WIDTH, GRID, heads=2, hidden=5).double()
    t, grad = tokens().requires_grad_(), tokens()
    e = [vector.requires_grad_() for vector in conditioning(trunk.sizes)]
    h, saved = trunk(t, e)
    to_t, to_e = trunk.pullback(grad, saved)
    for mine, theirs in zip([to_t, *to_e], autograds(h, [t, *e], grad), strict=True):
        assert_close(mine, theirs, rtol=1e-12, atol=1e-14)


def autograds(output: Tensor, inputs: list[Tensor], grad: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(
        output, inputs, grad, retain_graph=True, allow_unused=True, materialize_grads=True
    )


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
