"""Attention terms in chunks against the dense formula, and every way to differentiate them."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from energydiff.errors import UserError
from energydiff.potentials import (
    EnergyTransformer,
    PublishedEnergyTransformer,
    ScalarNetwork,
    energy_attention,
)
from energydiff.potentials.energy_attention import attention_terms, attention_value
from energydiff.potentials.energy_terms import AttentionEnergy


def dense(q: Tensor, k: Tensor, w: Tensor, self_excluded: bool) -> tuple[Tensor, Tensor, Tensor]:
    s = q @ k.mT
    if self_excluded:
        s = s.masked_fill(torch.eye(s.shape[-1], dtype=torch.bool), -torch.inf)
    a, w = s.softmax(-1), w[..., None]
    return s.logsumexp(-1), w * (a @ k), a.mT @ (w * q)


@pytest.fixture(autouse=True)
def chunks_that_do_not_divide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy_attention, "CHUNK", 3)


@pytest.fixture
def inputs() -> list[Tensor]:
    """Q, K and w of either sign: (2, 2) heads, 7 tokens."""
    shapes = (2, 2, 7, 3), (2, 2, 7, 3), (2, 2, 7)
    return [torch.randn(s, dtype=torch.float64).requires_grad_() for s in shapes]


both = pytest.mark.parametrize("self_excluded", [False, True])


@both
def test_dense_formula(inputs: list[Tensor], self_excluded: bool) -> None:
    for ours, plain in zip(
        attention_terms(*inputs, self_excluded), dense(*inputs, self_excluded), strict=True
    ):
        assert_close(ours, plain, rtol=1e-12, atol=1e-12)


def test_more_keys_than_queries_and_one_weight_for_all() -> None:
    q, k, w = torch.randn(2, 4, 5), torch.randn(2, 8, 5), torch.randn(2, 1)
    for ours, plain in zip(attention_terms(q, k, w), dense(q, k, w, False), strict=True):
        assert_close(ours, plain)


@both
def test_first_derivatives(inputs: list[Tensor], self_excluded: bool) -> None:
    """Of all three outputs: what training by the analytic score needs; forward mode too."""
    assert torch.autograd.gradcheck(
        lambda *t: attention_terms(*t, self_excluded), inputs, check_forward_ad=True
    )


@both
def test_gradients_are_the_derivative_of_the_weighted_logsumexp(
    inputs: list[Tensor], self_excluded: bool
) -> None:
    q, k, w = inputs
    lse, to_q, to_k = attention_terms(q, k, w, self_excluded)
    by_autograd = torch.autograd.grad((w * lse).sum(), (q, k), create_graph=True)
    assert_close(by_autograd, (to_q, to_k), rtol=1e-12, atol=1e-12)


@both
def test_logsumexp_alone_is_twice_differentiable(inputs: list[Tensor], self_excluded: bool) -> None:
    """An energy whose gradient is left to autograd, and a loss on it."""
    q, k, w = inputs
    assert torch.autograd.gradgradcheck(
        lambda q, k: w.detach() * attention_terms(q, k, w, self_excluded)[0], (q, k)
    )


def test_third_derivative_raises(inputs: list[Tensor]) -> None:
    first = torch.autograd.grad(attention_terms(*inputs)[1].sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="third derivative"):
        torch.autograd.grad(first[0].sum(), inputs)


@both
def test_function_transforms(inputs: list[Tensor], self_excluded: bool) -> None:
    """torch.func.grad, under vmap and alone, jvp and the Hessian of an energy."""
    q, k, w = (t.detach() for t in inputs)

    def loss(terms, *inputs: Tensor) -> Tensor:
        lse, to_q, to_k = terms(*inputs, self_excluded)
        return lse.cos().sum() + to_q.square().sum() + to_k.sin().sum()

    def ours(*inputs: Tensor) -> Tensor:
        return loss(attention_terms, *inputs)

    def plain(*inputs: Tensor) -> Tensor:
        return loss(dense, *inputs)

    every = (0, 1, 2)
    expected = torch.func.grad(plain, every)(q, k, w)
    assert_close(torch.func.grad(ours, every)(q, k, w), expected)
    assert_close(torch.func.vmap(torch.func.grad(ours, every))(q, k, w), expected)

    keys_shared = torch.func.vmap(ours, in_dims=(0, None, 0))(q, k[0], w)
    assert_close(keys_shared, torch.stack([plain(a, k[0], b) for a, b in zip(q, w, strict=True)]))

    tangents = tuple(torch.randn_like(t) for t in (q, k, w))
    pushed = torch.func.jvp(ours, (q, k, w), tangents)
    assert_close(pushed, torch.func.jvp(plain, (q, k, w), tangents))

    hessian = torch.func.hessian(lambda q: attention_terms(q, k[0], w[0], self_excluded)[0].sum())
    plain_hessian = torch.func.hessian(lambda q: dense(q, k[0], w[0], self_excluded)[0].sum())
    assert_close(hessian(q[0]), plain_hessian(q[0]))


def test_one_token_has_nothing_else_to_attend_to() -> None:
    one = torch.zeros(1, 1, 4)
    with pytest.raises(UserError, match="two tokens"):
        attention_terms(one, one, torch.ones(1), self_excluded=True)
    with torch.no_grad(), pytest.raises(UserError, match="two tokens"):
        attention_value(one, one, torch.ones(1), self_excluded=True)


def test_half_precision_accumulates_in_float32() -> None:
    q, k, w = torch.randn(2, 9, 4), torch.randn(2, 9, 4), torch.randn(2, 9)
    low = attention_terms(q.bfloat16(), k.bfloat16(), w)
    assert [t.dtype for t in low] == [torch.float32, torch.bfloat16, torch.bfloat16]
    for ours, exact in zip(low, attention_terms(q, k, w), strict=True):
        assert_close(ours.float(), exact, rtol=0.03, atol=0.03)


class Largest(TorchDispatchMode):
    """The most elements of any tensor that an operation made."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        results = func(*args, **(kwargs or {}))
        for result in results if isinstance(results, tuple | list) else (results,):
            if isinstance(result, Tensor):
                self.numel = max(self.numel, result.numel())
        return results


@both
def test_no_square_matrix_beyond_a_thousand_tokens(
    self_excluded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in the score nor in its training step: 2,048 tokens, the size as shipped."""
    monkeypatch.undo()
    tokens, heads = 2048, 2
    term = AttentionEnergy(16, heads, 8, self_excluded)
    g = torch.randn(1, tokens, 16, requires_grad=True)
    with Largest() as largest:
        term.value_and_grad(g)[1].square().sum().backward()
    assert g.grad is not None
    assert largest.numel <= energy_attention.CHUNK * tokens * heads
    assert largest.numel < heads * tokens**2 / 8


@pytest.mark.parametrize("network", [EnergyTransformer, PublishedEnergyTransformer])
def test_nor_does_a_whole_network_hold_one(
    network: type[ScalarNetwork], monkeypatch: pytest.MonkeyPatch
) -> None:
    """1,296 tokens, noise-conditioned, with the time score, through a training step."""
    monkeypatch.undo()
    tokens, heads = 36**2, 2
    model = network((1, 72, 72), patch_size=2, width=8, heads=heads)
    u, c = torch.randn(1, 1, 72, 72), torch.zeros(1)
    with Largest() as largest:
        _, to_u, to_c = model.value_and_grads(u, c)
        (to_u.square().sum() + to_c.square().sum()).backward()
    assert model.positions.grad is not None
    assert largest.numel < heads * tokens**2 / 4
