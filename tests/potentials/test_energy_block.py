"""The Energy Transformer's terms and block: published numbers, autograd, descent."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from energydiff.errors import UserError
from energydiff.memory.lagrangians import LayerNorm
from energydiff.potentials.chunked_attention import ROWS
from energydiff.potentials.energy_block import EnergyTransformerBlock
from energydiff.potentials.energy_terms import AttentionEnergy, EnergyLayerNorm, MemoryEnergy

TERMS = {
    "attention": lambda: AttentionEnergy(6, heads=3, head_width=4),
    "attention, self-excluded": lambda: AttentionEnergy(6, 3, 4, self_excluded=True),
    "attention, learned": lambda: AttentionEnergy(6, 3, 4, head_weights="learned"),
    "relu2": lambda: MemoryEnergy(6, memories=9),
    "relu2, learned": lambda: MemoryEnergy(6, 9, memory_weights="learned"),
    "softmax": lambda: MemoryEnergy(6, 9, "softmax"),
    "softmax, learned": lambda: MemoryEnergy(6, 9, "softmax", "learned"),
}
PRECISIONS = {torch.float32: 1e-6, torch.float64: 1e-12}


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).detach().norm() / expected.detach().norm())


@pytest.mark.parametrize("name", "ab")
def test_reference_numbers(name: str) -> None:
    """Every number of an independent float64 implementation, twelve steps of descent included."""
    with np.load(Path(__file__).with_name(f"energy_transformer_{name}.npz")) as archive:
        reference = {key: torch.from_numpy(archive[key]) for key in archive.files}
    heads, head_width, width = reference["W_q"].shape
    block = EnergyTransformerBlock(width, heads, head_width, len(reference["xi"])).double()
    block.load_state_dict(
        {
            "norm.log_gamma": reference["gamma"].log(),
            "norm.delta": reference["delta"],
            "attention.projection": torch.stack([reference["W_q"], reference["W_k"]]),
            "memory.patterns": reference["xi"],
        }
    )

    def same(actual: Tensor, key: str) -> None:
        assert_close(actual, reference[key], rtol=1e-10, atol=1e-12)

    tokens = reference["tokens"][None]
    g = block.norm.activation(tokens)
    same(g[0], "g")
    same(block.attention(g)[0], "energy_attention")
    same(block.memory(g)[0], "energy_memory")
    same(block.token_force(tokens)[1][0], "dE_dg")
    same(block.value_and_grad(tokens)[1][0], "dE_dtokens")
    reached, energies = block.descend(tokens, 12, 0.1)
    same(energies[:12, 0], "energies_of_12_steps")
    same(reached[0], "tokens_after_12_steps_of_0.1")


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("conditioned", [False, True])
@pytest.mark.parametrize("name", TERMS)
def test_a_term_and_its_training_against_autograd(
    name: str, conditioned: bool, dtype: torch.dtype
) -> None:
    """∂/∂g, and the gradient of a loss on it in every parameter and in e."""
    term = TERMS[name]().to(dtype)
    g = torch.randn(2, 5, 6, dtype=dtype, requires_grad=True)
    e = (0.5 * torch.randn(2, term.size, dtype=dtype)).requires_grad_() if conditioned else None
    value, grad = term.value_and_grad(g, e)
    assert value.shape == (2,)
    (expected,) = torch.autograd.grad(term(g, e).sum(), g, create_graph=True)
    assert relative(grad, expected) < PRECISIONS[dtype]
    target = torch.randn_like(g)
    wrt = [g, *term.parameters(), *([e] if conditioned else [])]
    ours = torch.autograd.grad((grad - target).square().sum(), wrt)
    double = torch.autograd.grad((expected - target).square().sum(), wrt)
    for one, other in zip(ours, double, strict=True):
        assert relative(one, other) < 2 * PRECISIONS[dtype]


@pytest.mark.parametrize("name", [*TERMS, "block"])
@pytest.mark.parametrize("tokens", [5, ROWS + 3])
def test_a_value_alone_is_the_value_beside_the_gradient(name: str, tokens: int) -> None:
    term = TERMS[name]() if name in TERMS else EnergyTransformerBlock(6, 2, 4, 7)
    g, e = torch.randn(2, tokens, 6), 0.5 * torch.randn(2, term.size)
    for condition in (None, e):
        expected = term.value_and_grad(g, condition)[0]
        assert torch.equal(term(g, condition), expected)
        with torch.no_grad():
            assert torch.equal(term(g, condition), expected)


@pytest.mark.parametrize("name", TERMS)
def test_conditioning_changes_the_term_and_one_row_serves_all(name: str) -> None:
    term, g = TERMS[name](), torch.randn(3, 5, 6)
    assert_close(term(g, torch.zeros(1, term.size)), term(g))
    e = torch.randn(1, term.size)
    assert_close(term(g, e), term(g, e.expand(3, -1)))
    assert (term(g, e) - term(g)).abs().min() > 1e-4


@pytest.mark.parametrize("self_excluded", [False, True])
@pytest.mark.parametrize("activation", ["relu2", "softmax"])
def test_the_block_is_the_gradient_of_one_scalar(activation: str, self_excluded: bool) -> None:
    """Against central differences, which share no code with the written-out gradient."""
    block = EnergyTransformerBlock(6, 2, 4, 9, activation, self_excluded).double()
    torch.nn.init.normal_(block.norm.delta)
    tokens = torch.randn(2, 5, 6, dtype=torch.float64)
    e = 0.3 * torch.randn(1, block.size, dtype=torch.float64)
    direction = torch.randn_like(tokens)
    _, grad = block.value_and_grad(tokens, e)
    h = 1e-5
    slope = (block(tokens + h * direction, e) - block(tokens - h * direction, e)) / (2 * h)
    assert_close((grad * direction).sum((1, 2)), slope, rtol=1e-8, atol=1e-8)


def test_layer_norm_is_the_gradient_of_its_lagrangian() -> None:
    """γ and δ learned, δ counted once, one root per token; pullback is (∂g/∂x)ᵀ."""
    norm = EnergyLayerNorm(6).double()
    with torch.no_grad():
        norm.log_gamma.fill_(0.3)
        norm.delta.normal_()
    tokens = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert norm(tokens).shape == (2, 5)
    g = norm.activation(tokens)
    assert_close(g, torch.autograd.grad(norm(tokens).sum(), tokens)[0])
    assert_close(norm(tokens), LayerNorm(norm.log_gamma.exp().item(), norm.delta.detach())(tokens))
    cotangent = torch.randn_like(g)
    assert_close(
        norm.pullback(tokens, cotangent),
        torch.autograd.grad(g, tokens, cotangent)[0],
        rtol=1e-12,
        atol=1e-12,
    )


def test_descent_lowers_the_energy_and_holds_clamped_tokens() -> None:
    block = EnergyTransformerBlock(6, 2, 4, 9).double()
    tokens = torch.randn(3, 5, 6, dtype=torch.float64)
    held = torch.tensor([True, False, False, True, False])
    reached, energies = block.descend(tokens, 30, 0.05, clamp=held)
    assert energies.shape == (31, 3)
    assert (energies.diff(dim=0) < 0).all()
    assert torch.equal(reached[:, held], tokens[:, held])
    assert ((reached - tokens).abs().amax(-1) > 1e-3)[:, ~held].all()


def test_memories_alone_descend_at_any_step_size() -> None:
    """E_mem is concave in g: no step is too long, where attention would need short ones."""
    block = EnergyTransformerBlock(6, 2, 4, 9).double()
    with torch.no_grad():
        block.attention.projection.zero_()
    for step_size in (1.0, 1e2, 1e4):
        _, energies = block.descend(torch.randn(8, 5, 6, dtype=torch.float64), 10, step_size)
        assert (energies.diff(dim=0) <= 1e-12 * energies[0].abs()).all()


def test_wrong_names_are_sentences() -> None:
    with pytest.raises(UserError, match="relu2 or softmax"):
        MemoryEnergy(6, 9, "gelu")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="unit or learned"):
        AttentionEnergy(6, 2, 4, head_weights="free")  # type: ignore[arg-type]
