"""Attention terms, fused and in chunks, against the dense formula and every way to differentiate
them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from energydiff.errors import UserError
from energydiff.potentials import (
    EnergyTransformer,
    PublishedEnergyTransformer,
    ScalarNetwork,
    chunked_attention,
    fused_attention,
)
from energydiff.potentials.energy_attention import attention_terms, attention_value
from energydiff.potentials.energy_terms import AttentionEnergy

PRECISIONS = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 2e-2}


def dense(q: Tensor, k: Tensor, self_excluded: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    s = q @ k.mT
    if self_excluded:
        s = s.masked_fill(torch.eye(s.shape[-1], dtype=torch.bool), -torch.inf)
    a = s.softmax(-1)
    return s.logsumexp(-1).sum(-1), a @ k, a.mT @ q


@pytest.fixture(params=["chunks", "fused"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both, at any size; chunks that do not divide it."""
    monkeypatch.setattr(chunked_attention, "ROWS", 3)
    monkeypatch.setattr(fused_attention, "serves", lambda q, k: request.param == "fused")
    return request.param


@pytest.fixture
def inputs() -> list[Tensor]:
    """Q and K: (2, 2) heads, 7 tokens."""
    return [torch.randn(2, 2, 7, 3, dtype=torch.float64).requires_grad_() for _ in "qk"]


both = pytest.mark.parametrize("self_excluded", [False, True])
either_way = pytest.mark.usefixtures("way")


@both
@either_way
def test_dense_formula(inputs: list[Tensor], self_excluded: bool) -> None:
    terms = attention_terms(*inputs, self_excluded)
    assert_close(terms, dense(*inputs, self_excluded), rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        assert torch.equal(attention_value(*inputs, self_excluded), terms[0])
    with torch.inference_mode():
        q, k = (t.clone() for t in inputs)
        assert_close(attention_terms(q, k, self_excluded), terms, rtol=0, atol=0)
        assert torch.equal(attention_value(q, k, self_excluded), terms[0])


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 2)])
@either_way
def test_more_keys_than_queries_and_any_number_of_heads(shape: tuple[int, ...]) -> None:
    q, k = torch.randn(*shape, 4, 5), torch.randn(*shape, 8, 5)
    assert_close(attention_terms(q, k), dense(q, k))
    assert attention_value(q, k).shape == shape


@pytest.mark.parametrize("dtype", PRECISIONS)
@either_way
def test_value_gradient_and_training_against_autograd(dtype: torch.dtype, way: str) -> None:
    """Of an attention large enough for blocks inside kernels, relative to plain autograd in
    float64."""
    exact = [torch.randn(2, 2, 150, 16, dtype=torch.float64, requires_grad=True) for _ in "qk"]
    rounded = [t.detach().to(dtype).requires_grad_() for t in exact]
    for wide, narrow in zip(exact, rounded, strict=True):
        wide.data.copy_(narrow)
    answers = []
    for terms, inputs in ((attention_terms, rounded), (dense, exact)):
        value, to_q, to_k = terms(*inputs)
        loss = (to_q.square().sum() + to_k.square().sum()).to(exact[0].dtype)
        answers.append([value, to_q, to_k, *torch.autograd.grad(loss, inputs)])
    for one, other in zip(*answers, strict=True):
        assert ((one - other).norm() / other.norm()).item() < PRECISIONS[dtype]


@both
@pytest.mark.parametrize("head_width", [3, 8])
@either_way
def test_first_derivatives(self_excluded: bool, head_width: int) -> None:
    """Of all three outputs: what training by the analytic score needs; forward mode too."""
    inputs = [torch.randn(4, head_width).double().requires_grad_() for _ in "qk"]
    assert torch.autograd.gradcheck(
        lambda *t: attention_terms(*t, self_excluded), inputs, check_forward_ad=True
    )


@both
@either_way
def test_gradients_are_the_derivative_of_the_summed_logsumexp(
    inputs: list[Tensor], self_excluded: bool
) -> None:
    total, *gradients = attention_terms(*inputs, self_excluded)
    by_autograd = torch.autograd.grad(total.sum(), inputs, create_graph=True)
    assert_close(by_autograd, tuple(gradients), rtol=1e-12, atol=1e-12)


@both
def test_a_compiler_gets_ordinary_operations(inputs: list[Tensor], self_excluded: bool) -> None:
    def step(q: Tensor, k: Tensor) -> Tensor:
        value, to_q, to_k = attention_terms(q, k, self_excluded)
        return value.sum() + to_q.square().sum() + to_k.square().sum()

    def alone(q: Tensor, k: Tensor) -> Tensor:
        return attention_value(q, k, self_excluded)

    compiled = torch.compile(step, fullgraph=True, backend="eager")
    assert_close(
        torch.autograd.grad(compiled(*inputs), inputs), torch.autograd.grad(step(*inputs), inputs)
    )
    with torch.no_grad():
        compiled = torch.compile(alone, fullgraph=True, backend="eager")
        assert_close(compiled(*inputs), alone(*inputs))


@both
@either_way
def test_value_alone_is_twice_differentiable(inputs: list[Tensor], self_excluded: bool) -> None:
    """An energy whose gradient is left to autograd, and a loss on it."""
    q, k = (t[0, :, :4].detach().requires_grad_() for t in inputs)
    assert torch.autograd.gradgradcheck(lambda q, k: attention_value(q, k, self_excluded), (q, k))


@either_way
def test_third_derivative_raises(inputs: list[Tensor]) -> None:
    first = torch.autograd.grad(attention_terms(*inputs)[1].sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="third derivative"):
        torch.autograd.grad(first[0].sum(), inputs)


@both
@either_way
def test_function_transforms(inputs: list[Tensor], self_excluded: bool) -> None:
    """torch.func.grad, under vmap and alone, jvp, with and without gradients, and the Hessian of
    an energy."""
    q, k = (t.detach() for t in inputs)

    def loss(terms, *inputs: Tensor) -> Tensor:
        total, to_q, to_k = terms(*inputs, self_excluded)
        return total.cos().sum() + to_q.square().sum() + to_k.sin().sum()

    def ours(*inputs: Tensor) -> Tensor:
        return loss(attention_terms, *inputs)

    def plain(*inputs: Tensor) -> Tensor:
        return loss(dense, *inputs)

    expected = torch.func.grad(plain, (0, 1))(q, k)
    assert_close(torch.func.grad(ours, (0, 1))(q, k), expected)
    assert_close(torch.func.vmap(torch.func.grad(ours, (0, 1)))(q, k), expected)

    keys_shared = torch.func.vmap(ours, in_dims=(0, None))(q, k[0])
    assert_close(keys_shared, torch.stack([plain(each, k[0]) for each in q]))

    tangents = torch.randn_like(q), torch.randn_like(k)
    assert_close(torch.func.jvp(ours, (q, k), tangents), torch.func.jvp(plain, (q, k), tangents))

    with torch.no_grad():
        pushed = torch.func.jvp(lambda *t: attention_value(*t, self_excluded), (q, k), tangents)
        by_formula = torch.func.jvp(lambda *t: dense(*t, self_excluded)[0], (q, k), tangents)
        assert_close(pushed, by_formula)
        each = torch.func.vmap(lambda *t: attention_value(*t, self_excluded))(q, k)
        assert_close(each, by_formula[0])

    hessian = torch.func.hessian(lambda q: attention_terms(q, k[0], self_excluded)[0].sum())
    plain_hessian = torch.func.hessian(lambda q: dense(q, k[0], self_excluded)[0].sum())
    assert_close(hessian(q[0]), plain_hessian(q[0]))


def test_one_token_has_nothing_else_to_attend_to() -> None:
    one = torch.zeros(1, 1, 4)
    with pytest.raises(UserError, match="two tokens"):
        attention_terms(one, one, self_excluded=True)
    with torch.no_grad(), pytest.raises(UserError, match="two tokens"):
        attention_value(one, one, self_excluded=True)


@either_way
def test_half_precision_accumulates_in_float32() -> None:
    """Under autocast too, which would round the inputs of kernels."""
    q, k = torch.randn(2, 9, 4), torch.randn(2, 9, 4)
    exact = attention_terms(q, k)
    low = attention_terms(q.bfloat16(), k.bfloat16())
    assert [t.dtype for t in low] == [torch.float32, torch.bfloat16, torch.bfloat16]
    for ours, other in zip(low, exact, strict=True):
        assert_close(ours.float(), other, rtol=0.03, atol=0.03)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(attention_terms(q, k), exact, rtol=0, atol=0)


@given(st.floats(-300, 300), st.floats(-300, 300))
def test_large_logits_of_either_sign(first: float, second: float) -> None:
    """ℓ far outside of what exp can hold."""
    q = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    k = torch.tensor([[first, 2.0], [second, -3.0], [1.0, first]], dtype=torch.float64)
    expected = dense(q, k)
    assert_close(fused_attention.terms(q, k), expected, rtol=1e-10, atol=1e-10)
    assert_close(chunked_attention.terms(q, k, False), expected, rtol=1e-10, atol=1e-10)


def test_fused_attention_serves_where_it_is_measured_faster_and_there_is_a_kernel() -> None:
    def tokens(n: int, width: int) -> Tensor:
        return torch.randn(1, 2, n, width)

    assert fused_attention.serves(tokens(7, 16), tokens(256, 16))
    assert not fused_attention.serves(tokens(256, 16), tokens(64, 16))
    assert not fused_attention.serves(tokens(256, 64), tokens(256, 64))
    with sdpa_kernel(SDPBackend.MATH):
        assert not fused_attention.serves(tokens(256, 16), tokens(256, 16))
    elsewhere = tokens(256, 16).to("meta")
    assert not fused_attention.serves(elsewhere, elsewhere)


def test_a_chunk_on_an_accelerator_fills_its_memory_bound() -> None:
    q, k = (torch.empty(4, 2, n, 8, device="meta") for n in (10**6, 4096))
    rows = chunked_attention.rows_per_chunk(q, k)
    assert rows * 8 * 4096 * 4 == chunked_attention.CHUNK_BYTES
    huge = torch.empty(1, 1, 2**31, 1, device="meta")
    assert chunked_attention.rows_per_chunk(huge, huge) == 1


@both
@pytest.mark.parametrize("rows", [1, 4, 7, 10**9])
def test_chunks_of_any_size_give_equal_values(
    rows: int, self_excluded: bool, inputs: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunked_attention, "rows_per_chunk", lambda q, k: rows)
    q, k, d1, d2 = (torch.randn_like(inputs[0]) for _ in range(4))
    plain, pull = torch.func.vjp(lambda q, k: dense(q, k, self_excluded), q, k)
    assert_close(chunked_attention.terms(q, k, self_excluded), plain)
    assert_close(chunked_attention.value(q, k, self_excluded), plain[0])
    assert_close(
        chunked_attention.pullback(q, k, d1, d2, self_excluded),
        pull((torch.zeros_like(plain[0]), d1, d2)),
    )


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
@pytest.mark.parametrize("head_width", [8, 64])
def test_no_square_matrix_beyond_a_thousand_tokens(self_excluded: bool, head_width: int) -> None:
    """Neither in the score nor in its training step: 2,048 tokens, the size as shipped."""
    tokens, heads = 2048, 2
    term = AttentionEnergy(16, heads, head_width, self_excluded)
    g = torch.randn(1, tokens, 16, requires_grad=True)
    with Largest() as largest:
        term.value_and_grad(g)[1].square().sum().backward()
    assert g.grad is not None
    assert largest.numel <= chunked_attention.ROWS * tokens * heads
    assert largest.numel < heads * tokens**2 / 8


@pytest.mark.parametrize("network", [EnergyTransformer, PublishedEnergyTransformer])
def test_nor_does_a_whole_network_hold_one(network: type[ScalarNetwork]) -> None:
    """1,296 tokens, noise-conditioned, with the time score, through a training step."""
    tokens, heads = 36**2, 2
    model = network((1, 72, 72), patch_size=2, width=8, heads=heads)
    u, c = torch.randn(1, 1, 72, 72), torch.zeros(1)
    with Largest() as largest:
        _, to_u, to_c = model.value_and_grads(u, c)
        (to_u.square().sum() + to_c.square().sum()).backward()
    assert model.positions.grad is not None
    assert largest.numel < heads * tokens**2 / 4
