"""Noise keyed by (seed, index, stream): the published generator, the same for ever and anywhere."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from energydiff import random
from energydiff.random import (
    CALIBRATION,
    SAMPLING,
    TRAINING,
    as_indices,
    keyed_normal,
    keyed_order,
    keyed_signs,
    keyed_uniform,
    open_unit,
    philox,
    philox4x32,
)

SHAPE = (2, 3)
MASK = (1 << 32) - 1
SIGNED = st.integers(-(1 << 63), (1 << 63) - 1)

# Of the authors' library, Random123: counter, key, and what comes out.
KNOWN = [
    (4 * (0,), 2 * (0,), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (4 * (MASK,), 2 * (MASK,), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def plain_philox(counter: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, ...]:
    """Figure 2 of Salmon et al. 2011 in Python's integers."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        one, two = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = two >> 32 ^ c1 ^ k0, two & MASK, one >> 32 ^ c3 ^ k1, one & MASK
        k0, k1 = k0 + 0x9E3779B9 & MASK, k1 + 0xBB67AE85 & MASK
    return c0, c1, c2, c3


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_the_generator_is_the_published_one(counter, key, expected) -> None:  # type: ignore[no-untyped-def]
    words = philox4x32(tuple(torch.tensor([word]) for word in counter), key)
    assert tuple(int(word) for word in words) == expected == plain_philox(counter, key)


@given(seed=SIGNED, index=SIGNED, stream=st.integers(0, 9), number=st.integers(1, 9))
def test_a_key_is_a_counter(seed: int, index: int, stream: int, number: int) -> None:
    """All 64 bits of seed and index count, whatever their sign."""
    words = torch.stack(philox(seed, as_indices([index]), number, stream), -1)[0]
    for block, found in enumerate(words.tolist()):
        counter = (index & MASK, block, index >> 32 & MASK, stream)
        assert tuple(found) == plain_philox(counter, (seed & MASK, seed >> 32 & MASK))


def test_normal_numbers_are_box_and_mullers() -> None:
    found = keyed_normal(3, [7], (5,), SAMPLING, torch.float64)[0].tolist()
    a, b, c, d = (words[0].tolist() for words in philox(3, as_indices([7]), 5, SAMPLING))
    for i, (u, v) in enumerate(((a[0], b[0]), (c[0], d[0]))):
        radius = math.sqrt(-2 * math.log((u + 0.5) / 2**32))
        expected = radius * math.cos(math.tau * v / 2**32), radius * math.sin(math.tau * v / 2**32)
        assert found[2 * i : 2 * i + 2] == pytest.approx(expected, abs=1e-14)


def test_what_was_drawn_stays_drawn() -> None:
    """A change here would change every sample that anyone has drawn by its seed, and needs another
    name of the rule."""
    assert random.RULE == "philox4x32-10"
    assert_close(
        keyed_normal(0, [0], (3,)),
        torch.tensor([[1.9773126, -0.6891705, 1.2358384]]),
        rtol=0,
        atol=1e-6,
    )


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda: keyed_normal(4, [7], SHAPE, SAMPLING), id="seed"),
        pytest.param(lambda: keyed_normal(3, [8], SHAPE, SAMPLING), id="index"),
        pytest.param(lambda: keyed_normal(3, [-7], SHAPE, SAMPLING), id="sign"),
        pytest.param(lambda: keyed_normal(3, [7 + 2**32], SHAPE, SAMPLING), id="high-bits"),
        pytest.param(lambda: keyed_normal(3 + 2**32, [7], SHAPE, SAMPLING), id="high-seed"),
        pytest.param(lambda: keyed_normal(7, [3], SHAPE, SAMPLING), id="swapped"),
        pytest.param(lambda: keyed_normal(3, [7], SHAPE, TRAINING), id="stream"),
    ],
)
def test_another_key_gives_another_draw(other: Callable[[], Tensor]) -> None:
    one, two = keyed_normal(3, [7], SHAPE, SAMPLING), other()
    assert not bool((one == two).any())


DRAWS: dict[str, Callable[[list[int]], Tensor]] = {
    "normal": lambda i: keyed_normal(5, i, (3, 5)),
    "double": lambda i: keyed_normal(5, i, (3, 5), SAMPLING, torch.float64),
    "uniform": lambda i: keyed_uniform(5, i, 7, TRAINING),
    "signs": lambda i: keyed_signs(5, i, (3, 5)),
    "order": lambda i: keyed_order(5, i, 11, TRAINING),
}


@pytest.mark.parametrize("kind", DRAWS)
@given(indices=st.lists(st.integers(-5, 2**40), min_size=1, max_size=12), data=st.data())
@settings(max_examples=20)
def test_a_draw_does_not_see_its_batch(kind: str, indices: list[int], data: st.DataObject) -> None:
    """Bitwise, in any batch and order, whatever its size."""
    draw = DRAWS[kind]
    part = data.draw(st.permutations(range(len(indices))))[: 1 + len(indices) // 2]
    assert torch.equal(draw([indices[i] for i in part]), draw(indices)[part])


def test_large_batches_come_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = keyed_normal(0, range(10), SHAPE)
    for chunk in (1, 13, 60):
        monkeypatch.setattr(random, "_CHUNK", chunk)
        assert torch.equal(keyed_normal(0, range(10), SHAPE), whole)


def test_float32_is_float64_rounded() -> None:
    single, double = (
        keyed_normal(0, range(9), SHAPE, SAMPLING, d) for d in (torch.float32, torch.float64)
    )
    assert double.dtype == torch.float64 and single.shape == (9, *SHAPE)
    assert torch.equal(single, double.float())


def test_indices_are_tensors_or_what_can_be_counted() -> None:
    expected = keyed_normal(0, [3, 4, 5], SHAPE)
    for same in (range(3, 6), torch.arange(3, 6), np.arange(3, 6), iter((3, 4, 5))):
        assert torch.equal(keyed_normal(0, same, SHAPE), expected)


def test_no_indices_are_no_draws() -> None:
    assert [draw([]).shape[0] for draw in DRAWS.values()] == [0] * len(DRAWS)
    assert keyed_normal(0, [], SHAPE).shape == (0, *SHAPE)
    assert keyed_normal(0, [1], (0,)).shape == (1, 0)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_it_draws_the_same(backend: str) -> None:
    """Bitwise. A compiler may take it that int64 does not overflow, and does so where it counts."""
    indices = torch.arange(-3, 13) * 5 + 2**33
    compiled = torch.compile(keyed_normal, backend=backend, fullgraph=True)
    assert torch.equal(compiled(5, indices, (3, 7)), keyed_normal(5, indices, (3, 7)))


def test_the_global_generators_play_no_part() -> None:
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    one = keyed_normal(0, [0], SHAPE)
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    assert torch.equal(one, keyed_normal(0, [0], SHAPE))


@pytest.mark.parametrize(
    "shapes", [(1, 60_000), (60_000, 1), (300, 200)], ids=["long", "many", "both"]
)
def test_the_distributions(shapes: tuple[int, int]) -> None:
    """Within a draw and across neighbouring indices, by Kolmogorov and Smirnov; |z| has tails."""
    count, size = shapes
    normal = keyed_normal(0, range(count), (size,), CALIBRATION).double().flatten()
    assert scipy.stats.kstest(normal, "norm").pvalue > 0.01
    assert 3.8 < normal.abs().max().item() < 5.5
    uniform = keyed_uniform(0, range(count), size, CALIBRATION).flatten()
    assert scipy.stats.kstest(uniform, "uniform").pvalue > 0.01
    signs = keyed_signs(0, range(count), (size,)).flatten()
    assert set(signs.tolist()) == {-1.0, 1.0} and abs(signs.mean().item()) < 0.015


def test_moments() -> None:
    noise = keyed_normal(1, range(20_000), (10,), CALIBRATION).double()
    for power, expected in enumerate((0, 1, 0, 3, 0, 15), start=1):
        error = 4 * math.sqrt(math.prod(range(1, 2 * power, 2)) / noise.numel())
        assert noise.pow(power).mean().item() == pytest.approx(expected, abs=error)


@pytest.mark.parametrize(
    "other",
    [
        lambda: keyed_normal(0, range(1, 20_001), (4,), CALIBRATION),
        lambda: keyed_normal(0, range(2**32, 2**32 + 20_000), (4,), CALIBRATION),
        lambda: keyed_normal(1, range(20_000), (4,), CALIBRATION),
        lambda: keyed_normal(0, range(20_000), (4,), TRAINING),
        lambda: keyed_normal(0, range(20_000), (5,), CALIBRATION)[:, 1:],
        lambda: keyed_normal(0, range(20_000), (4,), CALIBRATION).roll(1, 1),
    ],
    ids=["next index", "high word", "next seed", "stream", "next number", "within a block"],
)
def test_neighbours_are_independent(other: Callable[[], Tensor]) -> None:
    """Counter-based draws at neighbouring keys must not resemble each other, nor their squares."""
    one, two = keyed_normal(0, range(20_000), (4,), CALIBRATION).double(), other().double()
    for power in (1, 2):
        both = torch.stack([one.pow(power).flatten(), two.pow(power).flatten()])
        assert abs(torch.corrcoef(both)[0, 1].item()) < 4 / math.sqrt(one.numel())


def test_the_rarest_numbers_are_finite() -> None:
    """One image in 2²³ draws the highest uniform number: an infinite σ would end a long run."""
    extremes = torch.tensor([0, MASK])
    uniform = open_unit(extremes)
    assert uniform.tolist() == [2.0**-24, 1 - 2.0**-24]
    normal = random._normal((extremes,) * 4, 8, torch.float64)
    assert bool(normal.isfinite().all()) and 6.7 < normal.abs().max().item() < 6.8


def test_orders_are_permutations_and_any_is_as_likely() -> None:
    orders = keyed_order(0, range(6_000), 3, TRAINING)
    assert torch.equal(orders.sort(1).values, torch.arange(3).expand(6_000, 3))
    counts = torch.unique(orders, dim=0, return_counts=True)[1]
    assert scipy.stats.chisquare(counts).pvalue > 0.01
    (long,) = keyed_order(0, [0], 10_000, TRAINING)
    assert abs(scipy.stats.spearmanr(long, range(10_000)).statistic) < 0.04
