"""Image n of the training stream is a function of (seed, n), whoever asks and when."""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from energydiff.data import Digits, Source
from energydiff.diffusion import LogNormal
from energydiff.training import stream
from energydiff.training.stream import CountedBatches, HeldOut, Item, TrainingStream

SIZE, BATCH = 50, 12
Batch = list[tuple[int, int]]


def batches(seed: int = 0, start: int = 0, **part: int) -> Iterator[Batch]:
    return iter(CountedBatches(SIZE, BATCH, seed, start, **part))


def images(count: int, seed: int = 0, start: int = 0) -> Batch:
    """The first ``count`` images from ``start`` on."""
    flat = (image for batch in batches(seed, start) for image in batch)
    return list(islice(flat, count))


@pytest.fixture(scope="module")
def digits() -> Source:
    return Digits().open().train


def equal(one: Item, other: Item) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_images_are_counted_from_zero() -> None:
    assert [count for count, _ in images(200)] == list(range(200))


def test_every_pass_sees_every_sample_once() -> None:
    indices = [index for _, index in images(4 * SIZE)]
    passes = [indices[i : i + SIZE] for i in range(0, 4 * SIZE, SIZE)]
    assert all(sorted(part) == list(range(SIZE)) for part in passes)
    assert len({tuple(part) for part in passes}) == 4


def test_another_seed_is_another_order() -> None:
    assert images(SIZE, seed=0) != images(SIZE, seed=1)


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_the_ranks_together_see_what_one_rank_sees(ranks: int) -> None:
    """Batch by batch, over the seams between passes, and each image on one rank only."""
    one = islice(batches(), 20)
    parts = zip(*[batches(rank=r, world_size=ranks) for r in range(ranks)], strict=True)
    for whole, shares in zip(one, parts, strict=False):
        assert whole == [image for share in shares for image in share]
        assert {len(share) for share in shares} == {BATCH // ranks}


@pytest.mark.parametrize("steps", [1, 4, 5, 23])
def test_starting_late_is_going_on(steps: int) -> None:
    """Within a pass, at its end and some passes later."""
    late = batches(start=steps * BATCH)
    assert list(islice(late, 10)) == list(islice(batches(), steps, steps + 10))


def test_items_are_functions_of_seed_and_count(digits: Source) -> None:
    one, other = TrainingStream(digits, seed=3, flip=True), TrainingStream(digits, 3, flip=True)
    other[0, 5]  # what was asked before does not matter
    assert all(equal(one[count, 7], other[count, 7]) for count in range(10))


@pytest.mark.parametrize("change", [{"seed": 1}, {"count": 1}])
def test_another_seed_or_count_is_other_noise_on_the_same_image(change, digits: Source) -> None:
    key = {"seed": 0, "count": 0} | change
    one = TrainingStream(digits, 0)[0, 7]
    other = TrainingStream(digits, key["seed"])[key["count"], 7]
    assert torch.equal(one["raw"], other["raw"])
    assert not bool((one["noise"] == other["noise"]).any())
    assert not bool((one["uniform"] == other["uniform"]).any())


def test_about_half_of_the_images_are_flipped_and_nothing_else_changes(digits: Source) -> None:
    plain, flipping = TrainingStream(digits, 0), TrainingStream(digits, 0, flip=True)
    flips = 0
    for count in range(200):
        one, other = plain[count, 7], flipping[count, 7]
        flipped = torch.equal(other["raw"], one["raw"].flip(-1))
        assert flipped or torch.equal(other["raw"], one["raw"])
        assert equal({**one, "raw": other["raw"]}, other)
        flips += flipped
    assert 70 < flips < 130


def test_uniforms_stay_inside_their_interval(digits: Source) -> None:
    """σ is a quantile: at 0 or 1 it would be 0 or infinite."""
    training = TrainingStream(digits, 0)
    uniform = torch.stack([training[count, 0]["uniform"] for count in range(2_000)])
    assert uniform.dtype == torch.float32
    assert uniform.min().item() > 0 and uniform.max().item() < 1
    assert_close(uniform.mean(0), torch.tensor([0.5, 0.5]), rtol=0, atol=0.03)


class Extreme:
    """A generator that draws the lowest or the highest integers it may."""

    def __init__(self, highest: bool) -> None:
        self.highest = highest

    def integers(self, low: int, high: int, count: int) -> np.ndarray:
        return np.full(count, high - 1 if self.highest else low)

    def standard_normal(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        return np.zeros(shape, dtype)


@pytest.mark.parametrize("highest", [False, True])
def test_the_rarest_uniform_still_gives_a_finite_level(
    highest: bool, digits: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One image in 2^24 draws it: an infinite σ would end a long run."""
    monkeypatch.setattr(stream, "keyed_generator", lambda *_: Extreme(highest))
    uniform = TrainingStream(digits, 0)[0, 0]["uniform"]
    assert bool(((uniform > 0) & (uniform < 1)).all())
    assert bool(LogNormal().quantile(uniform).isfinite().all())


def test_held_out_noise_is_fixed() -> None:
    source = Digits().open().held_out
    one, other = HeldOut(source, 0), HeldOut(source, 0)
    other[3]
    assert all(equal(one[i], other[i]) for i in range(len(source)))


def test_held_out_levels_fill_their_distribution_evenly() -> None:
    """So the held-out loss is comparable between runs of any data set of some size."""
    held_out = HeldOut(Digits().open().held_out, 0)
    levels = torch.stack([held_out[i]["uniform"][0] for i in range(len(held_out))])
    counts = torch.histc(levels, bins=10, min=0, max=1) / len(held_out)
    assert_close(counts, torch.full((10,), 0.1), rtol=0, atol=0.01)


def test_held_out_labels_are_never_hidden() -> None:
    held_out = HeldOut(Digits(labels=True).open().held_out, 0)
    assert min(held_out[i]["uniform"][1].item() for i in range(20)) >= 1
