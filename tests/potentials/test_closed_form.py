"""The written-out double backwards against finite differences and plain autograd."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from energydiff.potentials.closed_form import attend, gelu, normalise

CASES = [
    (gelu, F.gelu, [(3, 5)]),
    (normalise, lambda h: F.layer_norm(h, h.shape[-1:]), [(2, 3, 5)]),
    (attend, F.scaled_dot_product_attention, [(2, 3, 4), (2, 5, 4), (2, 5, 4)]),
]


def draw(shapes: list[tuple[int, ...]], dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(s, dtype=dtype, generator=generator).requires_grad_() for s in shapes]


@pytest.mark.parametrize(("ours", "plain", "shapes"), CASES)
def test_first_and_second_derivatives(ours, plain, shapes) -> None:
    inputs = draw(shapes, torch.float64)
    torch.testing.assert_close(ours(*inputs), plain(*inputs))
    assert torch.autograd.gradcheck(ours, inputs)
    assert torch.autograd.gradgradcheck(ours, inputs)


@pytest.mark.parametrize(("ours", "plain", "shapes"), CASES)
def test_second_backward_outside_autocast(ours, plain, shapes) -> None:
    """The usual bfloat16 training step: both forward passes in autocast, the last one outside."""
    inputs = draw(shapes, torch.float32)
    exact = draw(shapes, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        first = torch.autograd.grad(
            ours(*[t.bfloat16() for t in inputs]).square().sum(), inputs, create_graph=True
        )
    sum(g.float().square().sum() for g in first).backward()
    second = torch.autograd.grad(ours(*exact).square().sum(), exact, create_graph=True)
    sum(g.square().sum() for g in second).backward()
    for mine, theirs in zip(inputs, exact, strict=True):
        assert (mine.grad - theirs.grad).norm() <= 0.1 * theirs.grad.norm() + 0.05


@pytest.mark.parametrize(("ours", "plain", "shapes"), CASES)
def test_under_activation_checkpointing_the_gradient_is_the_same(ours, plain, shapes) -> None:
    def slope(*inputs: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(ours(*inputs).pow(3).sum(), inputs, create_graph=True)[0]

    kept, made_anew = draw(shapes, torch.float64), draw(shapes, torch.float64)
    slope(*kept).square().sum().backward()
    checkpoint(slope, *made_anew, use_reentrant=False).square().sum().backward()
    for expected, found in zip(kept, made_anew, strict=True):
        assert torch.equal(found.grad, expected.grad)


@pytest.mark.parametrize(("ours", "plain", "shapes"), CASES)
@pytest.mark.parametrize("through", ["grad", "backward"])
def test_a_third_derivative_raises(ours, plain, shapes, through) -> None:
    inputs = draw(shapes, torch.float64)
    (first,) = torch.autograd.grad(ours(*inputs).pow(3).sum(), inputs[:1], create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), inputs[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="third derivative"):
        if through == "grad":
            torch.autograd.grad(second.sum(), inputs[:1])
        else:
            second.sum().backward()
