"""silu(GroupNorm(x) · scale + shift): two derivatives written out, and not a third."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from energydiff.potentials.groupnorm_silu import groupnorm_silu

# (shape of x, groups): one, some and as many groups as channels, 1-D and 2-D, odd widths.
CASES = [
    ((2, 4, 5), 1),
    ((2, 6, 5), 3),
    ((2, 4, 2, 3), 2),
    ((1, 6, 2, 2), 6),
    ((3, 6, 3, 1), 1),
]
every_case = pytest.mark.parametrize(("shape", "groups"), CASES)


def inputs(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """x, scale and shift in float64, all wanting gradients."""
    sizes = (shape, shape[:2], shape[:2])
    x, scale, shift = (torch.randn(size, dtype=torch.float64) for size in sizes)
    return x.requires_grad_(), (1 + 0.5 * scale).requires_grad_(), shift.requires_grad_()


def plain(x: Tensor, scale: Tensor, shift: Tensor, groups: int, eps: float) -> Tensor:
    space = [1] * (x.ndim - 2)
    scale, shift = (part.view(*part.shape, *space) for part in (scale, shift))
    return F.silu(F.group_norm(x, groups, eps=eps) * scale + shift)


def second_derivatives(function: object, given: tuple[Tensor, ...], groups: int) -> list[Tensor]:
    """Gradients of a curved function of the first gradients with respect to all of them."""
    y = function(*given, groups, 1e-5)  # type: ignore[operator]
    weights = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y)
    first = torch.autograd.grad((weights * y.square()).sum(), given, create_graph=True)
    return list(torch.autograd.grad(sum(g.pow(3).sum() for g in first), given))


@every_case
def test_it_equals_the_plain_form(shape: tuple[int, ...], groups: int) -> None:
    given = inputs(shape)
    one, other = (f(*given, groups, 1e-5) for f in (groupnorm_silu, plain))
    assert_close(one, other, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        assert_close(groupnorm_silu(*given, groups, 1e-5), other, rtol=1e-12, atol=1e-12)


@every_case
def test_first_derivatives(shape: tuple[int, ...], groups: int) -> None:
    assert torch.autograd.gradcheck(lambda *g: groupnorm_silu(*g, groups, 1e-5), inputs(shape))


@every_case
def test_second_derivatives(shape: tuple[int, ...], groups: int) -> None:
    assert torch.autograd.gradgradcheck(lambda *g: groupnorm_silu(*g, groups, 1e-5), inputs(shape))


@every_case
def test_second_derivatives_equal_those_of_the_plain_form(
    shape: tuple[int, ...], groups: int
) -> None:
    given = inputs(shape)
    one, other = (second_derivatives(f, given, groups) for f in (groupnorm_silu, plain))
    assert_close(one, other, rtol=1e-9, atol=1e-9)


@every_case
def test_second_derivatives_under_torch_func(shape: tuple[int, ...], groups: int) -> None:
    given = tuple(part.detach() for part in inputs(shape))

    def slope(function: object) -> Tensor:
        def first(x: Tensor) -> Tensor:
            def value(x: Tensor) -> Tensor:
                y = function(x, *given[1:], groups, 1e-5)  # type: ignore[operator]
                return y.pow(3).sum()

            return torch.func.grad(value)(x).square().sum()

        return torch.func.grad(first)(given[0])

    assert_close(slope(groupnorm_silu), slope(plain), rtol=1e-9, atol=1e-9)


def test_strided_inputs_and_cotangents() -> None:
    """A transposed image, and a cotangent with stride 0."""
    x, scale, shift = inputs((2, 4, 3, 5))
    given = (x.transpose(2, 3), scale, shift)
    one, other = (
        torch.autograd.grad(f(*given, 2, 1e-5).sum(), (x, scale, shift))
        for f in (groupnorm_silu, plain)
    )
    assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("wanted", [0, 1, 2], ids=["x", "scale", "shift"])
def test_second_derivatives_when_only_one_input_wants_them(wanted: int) -> None:
    """Missing cotangents reach the double backward as None."""
    given = [part.detach() for part in inputs((2, 4, 6))]
    given[wanted].requires_grad_()
    results = []
    for function in (groupnorm_silu, plain):
        y = function(*given, 2, 1e-5)
        (first,) = torch.autograd.grad(y.pow(3).sum(), given[wanted], create_graph=True)
        results.append(torch.autograd.grad(first.pow(2).sum(), given[wanted])[0])
    assert_close(*results, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("wanted", ["of x alone", "of all leaves"])
def test_a_third_derivative_raises(wanted: str) -> None:
    """It would be wrong: the second is not written out of differentiable parts."""
    x, scale, shift = inputs((2, 4, 5))
    y = groupnorm_silu(x, scale, shift, 2, 1e-5).pow(3).sum()
    (first,) = torch.autograd.grad(y, x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"differentiat|derivative"):
        if wanted == "of x alone":
            torch.autograd.grad(second.square().sum(), x)
        else:
            second.square().sum().backward()


def test_mixed_precision_stays_near_full_precision() -> None:
    """bfloat16 activations with float32 parameters, as under autocast."""
    x, scale, shift = (part.detach().float() for part in inputs((2, 8, 16)))
    exact = plain(x, scale, shift, 2, 1e-5)
    rough = groupnorm_silu(x.bfloat16(), scale, shift, 2, 1e-5)
    assert_close(rough.float(), exact, rtol=0.02, atol=0.05)


class OneType(TorchDispatchMode):
    """Refuses what CUDA's kernels refuse: maps and parameters of two floating types."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        found = {t.dtype for t in tree_leaves(args) if isinstance(t, Tensor) and t.ndim}
        floats = {dtype for dtype in found if dtype.is_floating_point}
        moves = func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
        assert len(floats) < 2 or moves, (func, floats)
        return func(*args, **(kwargs or {}))


def test_no_operation_meets_two_types_under_autocast() -> None:
    x, scale, shift = (part.detach().float() for part in inputs((2, 8, 4, 4)))
    x, scale = x.bfloat16().requires_grad_(), scale.requires_grad_()
    with OneType():
        y = groupnorm_silu(x, scale, shift, 2, 1e-5)
        first = torch.autograd.grad(y.square().sum(), x, create_graph=True)[0]
        torch.autograd.grad(first.square().sum(), (x, scale))
    assert y.dtype == first.dtype == torch.bfloat16


def test_any_memory_layout_stays_as_it_is() -> None:
    x, scale, shift = inputs((2, 4, 3, 5))
    last = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    found = groupnorm_silu(last, scale, shift, 2, 1e-5)
    (first,) = torch.autograd.grad(found.pow(3).sum(), last)
    (expected,) = torch.autograd.grad(groupnorm_silu(x, scale, shift, 2, 1e-5).pow(3).sum(), x)
    assert_close(first, expected, rtol=1e-12, atol=1e-12)
    for map_ in (found, first):
        assert map_.is_contiguous(memory_format=torch.channels_last)
