"""T11: how much the binary memories hold, against theory."""

import math

import pytest
import torch
from torch import Tensor

from energydiff.memory import BinaryHopfield, ExponentialMemory, PolynomialMemory


def signs(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randint(0, 2, shape, generator=generator).double() * 2 - 1


@pytest.mark.parametrize(("n", "size", "count"), [(2, 200, 89), (3, 100, 1481), (4, 60, 6400)])
def test_one_step_bit_error_of_a_dense_memory(n: int, size: int, count: int) -> None:
    """½ erfc √(N^(n−1)/(2K(2n−3)!!)), within four standard errors of the count."""
    generator = torch.Generator().manual_seed(0)
    wrong = bits = 0
    for _ in range(3):
        patterns = signs(generator, count, size)
        shown = patterns[:60]
        fields = PolynomialMemory(n).store(patterns).fields(shown)
        wrong, bits = wrong + int((fields.sign() != shown).sum()), bits + shown.numel()
    spread = 2 * count * math.prod(range(1, 2 * n - 2, 2))
    expected = 0.5 * math.erfc(math.sqrt(size ** (n - 1) / spread))
    assert abs(wrong / bits - expected) < 4 * math.sqrt(expected * (1 - expected) / bits)


@pytest.mark.parametrize(
    ("load", "low", "high"), [(0.05, 0.999, 1), (0.10, 0.99, 1), (0.138, 0.93, 1), (0.20, 0, 0.65)]
)
def test_classic_recall_collapses_beyond_its_load(load: float, low: float, high: float) -> None:
    """Mean overlap with the stored pattern at the fixed point that starts from it, N = 500.

    In the limit of large N it is 1.000, .998, .967 and then, beyond .138, about .35: a finite
    network blurs the jump.
    """
    generator = torch.Generator().manual_seed(0)
    overlaps = []
    for _ in range(2):
        patterns = signs(generator, round(load * 500), 500)
        result = BinaryHopfield().store(patterns).retrieve(patterns[:20])
        assert bool(result.at_rest.all()) and result.certificate.holds
        overlaps.append((result.samples * patterns[:20]).mean(1))
    assert low <= float(torch.cat(overlaps).mean()) <= high


def test_the_pseudo_inverse_keeps_what_hebb_forgets() -> None:
    patterns = signs(torch.Generator().manual_seed(0), 50, 100)
    assert torch.equal(
        BinaryHopfield("pseudo-inverse")
        .store(patterns)
        .update(patterns, torch.zeros_like(patterns, dtype=torch.bool)),
        patterns,
    )
    assert not torch.equal(BinaryHopfield().store(patterns).retrieve(patterns).samples, patterns)


def test_an_exponential_memory_holds_more_patterns_than_neurons_and_corrects_bits() -> None:
    """5,000 patterns on 100 neurons, a tenth of the bits flipped; e^100 in float32 overflows."""
    generator = torch.Generator().manual_seed(0)
    patterns = signs(generator, 5000, 100)
    shown = patterns[:20].clone()
    shown[:, :10] *= -1
    result = ExponentialMemory().store(patterns.float()).retrieve(shown.float())
    assert torch.equal(result.samples, patterns[:20].float()) and result.certificate.holds
