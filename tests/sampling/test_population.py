"""Weights of a population: what they are worth and how they are resampled."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from energydiff.sampling.population import Weights

logs = st.lists(st.floats(-30, 5), min_size=2, max_size=20)


def weights(*rows: list[float]) -> Weights:
    log = torch.tensor(rows, dtype=torch.float64)
    return Weights(log, torch.zeros(len(rows), dtype=torch.float64))


def test_the_effective_sample_size_of_equal_and_of_single_weights() -> None:
    found = weights([-7.0] * 4, [0.0, -math.inf, -math.inf, -math.inf], [0.0, 0.0, -900.0, -900.0])
    assert_close(found.ess, torch.tensor([4.0, 1.0, 2.0]).double())


@given(logs, st.floats(1e-6, 1 - 1e-6))
def test_systematic_resampling_copies_within_one_of_what_it_should(
    log: list[float], uniform: float
) -> None:
    before = weights(log)
    parents, after = before.resampled(torch.tensor([uniform]), torch.tensor([True]))
    copies = torch.bincount(parents, minlength=len(log))
    expected = len(log) * before.log.softmax(1)[0]
    assert bool(((copies - expected).abs() < 1 + 1e-6).all()) and int(copies.sum()) == len(log)
    assert not after.log.any()
    assert_close(after.log_normalizer, before.log_normalizer)  # settled, and counted on from here


def test_on_average_it_copies_what_it_should() -> None:
    before = weights([0.0, -1.0, -0.3, -2.5, -4.0])
    count = 2000
    many = Weights(before.log.expand(count, 5), torch.zeros(count).double())
    uniform = (torch.arange(count) + 0.5) / count
    parents, _ = many.resampled(uniform, torch.ones(count, dtype=torch.bool))
    copies = torch.bincount(parents % 5, minlength=5) / count
    assert_close(copies.double(), 5 * before.log.softmax(1)[0], rtol=0, atol=2e-3)


def test_only_the_populations_asked_for_are_resampled() -> None:
    before = weights([0.0, -50.0, -50.0], [0.0, -50.0, -50.0])
    parents, after = before.resampled(torch.tensor([0.5, 0.5]), torch.tensor([False, True]))
    assert parents.tolist() == [0, 1, 2, 3, 3, 3]
    assert_close(after.log[0], before.log[0])
    assert_close(after.log_normalizer, before.log_normalizer)


def test_what_is_not_a_number_has_no_weight() -> None:
    gain = torch.tensor([[math.nan, math.inf, 0.0, -math.inf]]).double()
    assert_close(weights([0.0] * 4).times(gain).ess, torch.tensor([1.0]).double())
