"""What a sample is: the rule on made-up distances, T13's ring, copies, and what is refused."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from energydiff.data import Digits, Normalization, Subset
from energydiff.data.source import ArraySource, index_names
from energydiff.energies import EmpiricalData
from energydiff.errors import UserError
from energydiff.evaluation.neighbours import nearest_neighbours
from energydiff.memorisation import Phase, Rule, sort_samples
from energydiff.memorisation.phases import among_themselves, without_copies
from energydiff.sampling import Heun, karras_sigmas


def source(values: Tensor) -> ArraySource:
    return ArraySource(values.numpy(), Normalization(-1, 1), index_names(len(values)))


def ring(count: int, seed: int = 0) -> Tensor:
    angles = torch.from_numpy(np.random.default_rng(seed).uniform(0, 2 * math.pi, count))
    return torch.stack([angles.cos(), angles.sin()], 1)


# The rule


def test_each_phase_by_hand() -> None:
    """A copy, two that are alike and no training sample, one alone, one that is not finite."""
    train = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    samples = torch.tensor([[0.0, 0.1], [4.0, 5.0], [4.0, 5.2], [9.0, 9.0], [torch.nan, 0.0]])
    found = sort_samples(samples, train, Rule(0.2, 0.5, 5))
    assert found.phase.tolist() == [0, 1, 1, 2, 2]
    assert found.train.index[:4, 0].tolist() == [0, 0, 0, 1]
    assert found.train.distance[0].tolist() == pytest.approx([0.1, math.hypot(10, 0.1)])
    assert found.others.index[1:3, 0].tolist() == [2, 1]
    assert [found.share(phase) for phase in Phase] == [0.2, 0.4, 0.4]
    assert found.copies == pytest.approx(1 / 5)


def test_memorised_goes_before_spurious() -> None:
    """Samples that are copies of one training sample are near one another too."""
    found = sort_samples(torch.zeros(4, 3), torch.zeros(1, 3), Rule(1.0, 1.0, 4))
    assert found.phase.tolist() == [0] * 4
    assert found.copies == 1  # of a single training sample there is no second distance


def test_neighbours_are_sought_in_blocks() -> None:
    samples = torch.tensor([[0.0], [1.0], [0.1], [1.1], [5.0]])
    assert among_themselves(samples, 2).distance[:, 0].tolist() == pytest.approx(
        [1, 1, 1, 1, math.inf]
    )
    assert among_themselves(samples, 2).index[:, 0].tolist() == [1, 0, 3, 2, -1]
    assert among_themselves(samples, 5).index[:, 0].tolist() == [2, 3, 0, 1, 3]


def test_thresholds_leave_few_held_out_samples_below() -> None:
    generator = torch.Generator().manual_seed(0)
    held_out = torch.randn(500, 8, generator=generator)
    train = torch.randn(2_000, 8, generator=generator)
    rule = Rule.calibrated(held_out, train, share=0.02, block=250)
    found = sort_samples(held_out, train, rule)
    assert rule.block == 250
    assert found.share(Phase.MEMORISED) == pytest.approx(0.02, abs=0.003)
    near = (found.others.distance[:, 0] <= rule.spurious).double().mean()
    assert float(near) == pytest.approx(0.02, abs=0.003)
    read = Rule.calibrated(held_out, source(train), share=0.02, block=250)
    assert read.memorised == pytest.approx(rule.memorised, rel=1e-6)


@pytest.mark.parametrize(
    ("held_out", "train", "share", "said"),
    [
        (torch.randn(50, 2), torch.randn(9, 2), 0.01, "need 100 held-out samples or more"),
        (torch.randn(50, 2), torch.randn(9, 2), 0.0, "share of 0 need"),
        (torch.zeros(50, 2), torch.randn(9, 2), 0.1, "are copies of others"),
    ],
)
def test_thresholds_that_there_are_not(
    held_out: Tensor, train: Tensor, share: float, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        Rule.calibrated(held_out, train, share)


def test_thresholds_are_distances() -> None:
    with pytest.raises(UserError, match="distances above 0"):
        Rule(0.0, 1.0, 10)


# T13, without training


@pytest.mark.parametrize(
    ("count", "phase", "least"),
    [(2, Phase.MEMORISED, 1.0), (9, Phase.SPURIOUS, 0.2), (1_000, Phase.GENERALISED, 0.95)],
)
def test_the_ring_passes_from_memories_through_spurious_states_to_a_manifold(
    count: int, phase: Phase, least: float
) -> None:
    """Pham et al.'s circle with the exact energy of K points: 2 are memorised, among 9 some minima
    are shared, and 1,000 are the circle."""
    data, noise = ring(count), torch.Generator().manual_seed(0)
    start = 20 * torch.randn(256, 2, dtype=torch.float64, generator=noise)
    sampler = Heun(karras_sigmas(40, 0.1, 20.0), final_denoise=True)
    samples = sampler(EmpiricalData(data), start, trace=False).samples
    rule = Rule.calibrated(ring(256, 1), ring(1_000), block=256)
    assert sort_samples(samples, data, rule).share(phase) >= least


# Neighbours


@given(st.integers(1, 40), st.integers(1, 60), st.integers(1, 4), st.integers(0, 10_000))
def test_neighbours_are_those_of_all_distances(
    queries: int, others: int, k: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(queries, 3, generator=generator), torch.randn(others, 3, generator=generator)
    found = nearest_neighbours(a, b, k)
    expected = torch.cdist(a.double(), b.double()).sort().values[:, :k]
    assert found.distance.shape == found.index.shape == (queries, k)
    there = min(k, others)
    assert_close(found.distance[:, :there], expected, rtol=1e-6, atol=1e-7)
    assert found.distance[:, there:].isinf().all() and (found.index[:, there:] == -1).all()


def test_neighbours_among_more_than_fit_at_once() -> None:
    """Several parts of queries and of others, from memory and from a source."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(4_500, 4, generator=generator), torch.rand(2_500, 4, generator=generator)
    found, read = nearest_neighbours(a, b), nearest_neighbours(a, source(b))
    expected = torch.cdist(a.double(), b.double()).topk(2, largest=False)
    assert_close(found.distance, expected.values, rtol=1e-6, atol=1e-7)
    assert torch.equal(found.index, expected.indices) and torch.equal(read.index, found.index)
    own = nearest_neighbours(b, b, 1, others_but_itself=True)
    assert (own.index[:, 0] != torch.arange(len(b))).all()
    apart = torch.cdist(b.double(), b.double()).fill_diagonal_(torch.inf).amin(1)
    assert_close(own.distance[:, 0], apart, rtol=1e-6, atol=1e-7)


def test_a_copy_is_at_no_distance_far_from_the_origin() -> None:
    """Where the product of matrices leaves only rounding."""
    b = 1_000 + torch.randn(50, 768)
    found = nearest_neighbours(b[:5], b)
    assert found.distance[:, 0].tolist() == [0.0] * 5 and found.index[:, 0].tolist() == [*range(5)]
    assert found.ratio.tolist() == [0.0] * 5


# Subsets and copies


def test_subsets_are_nested_and_halves_disjoint() -> None:
    train = Digits().open().train
    names = {k: Subset(k, seed=3).of(train).names for k in (4, 16, 1_499)}
    assert names[16][:4] == names[4] and set(names[1_499]) == set(train.names)
    other = Subset(16, seed=3, skip=16).of(train).names
    assert not set(other) & set(names[16])
    assert Subset(16, seed=4).of(train).names != names[16]


@pytest.mark.parametrize(
    ("subset", "said"),
    [
        (Subset(1_500), "asks for 1,500 images, and there are 1,499"),
        (Subset(1_000, skip=600), "1,000 images after 600 that are skipped"),
        (Subset(0), "at least 1"),
    ],
)
def test_subsets_that_there_are_not(subset: Subset, said: str) -> None:
    with pytest.raises(UserError, match=said):
        subset.of(Digits().open().train)


def test_copies_are_left_out() -> None:
    """Of a copy d1/d2 would be 1, and a memory would not be seen."""
    values = torch.tensor([[0.1, 0.2], [0.3, 0.4], [0.1, 0.2], [0.5, 0.6]])
    kept = without_copies(source(values))
    assert kept.names == ["000000", "000001", "000003"]
    assert sort_samples(values[:1], kept, Rule(1e-3, 1e-3, 2)).copies == 1
