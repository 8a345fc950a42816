"""Image n of the training stream is a function of (seed, n), whoever asks, where and when."""

from collections.abc import Iterator
from itertools import islice

import pytest
import torch
from torch.testing import assert_close
from torch.utils.data import DataLoader, default_collate

from energydiff.data import Digits, Source
from energydiff.diffusion import LogNormal
from energydiff.training import DiffusionData, DiffusionModule
from energydiff.training.stream import (
    CountedBatches,
    HeldOut,
    Item,
    TrainingStream,
    with_held_out_draws,
    with_training_draws,
)

SIZE, BATCH = 50, 12


def batches(start: int = 0, **part: int) -> Iterator[list[int]]:
    return iter(CountedBatches(BATCH, start, **part))


@pytest.fixture(scope="module")
def digits() -> Source:
    return Digits(labels=True).open().train


@pytest.fixture(scope="module")
def few(digits: Source) -> Source:
    return digits.spread(SIZE)


def batch(source: Source, counts: list[int], seed: int = 0) -> Item:
    stream = TrainingStream(source, seed)
    return default_collate([stream[count] for count in counts])


def equal(one: Item, other: Item) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_images_are_counted_from_zero() -> None:
    counts = [count for batch in islice(batches(), 20) for count in batch]
    assert counts == list(range(20 * BATCH))


def test_every_pass_sees_every_sample_once(few: Source) -> None:
    stream = TrainingStream(few, 0)
    indices = [stream.index(count) for count in range(4 * SIZE)]
    passes = [indices[i : i + SIZE] for i in range(0, 4 * SIZE, SIZE)]
    assert all(sorted(part) == list(range(SIZE)) for part in passes)
    assert len({tuple(part) for part in passes}) == 4
    assert indices != [TrainingStream(few, 1).index(count) for count in range(4 * SIZE)]


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_the_ranks_together_see_what_one_rank_sees(ranks: int) -> None:
    """Batch by batch, and each image on one rank only."""
    one = islice(batches(), 20)
    parts = zip(*[batches(rank=r, world_size=ranks) for r in range(ranks)], strict=True)
    for whole, shares in zip(one, parts, strict=False):
        assert whole == [image for share in shares for image in share]
        assert {len(share) for share in shares} == {BATCH // ranks}


@pytest.mark.parametrize("steps", [1, 4, 5, 23])
def test_starting_late_is_going_on(steps: int) -> None:
    assert list(islice(batches(steps * BATCH), 10)) == list(islice(batches(), steps, steps + 10))


def test_a_batch_carries_images_labels_and_counts_alone(few: Source) -> None:
    assert batch(few, [0, 1]).keys() == {"raw", "label", "count"}
    assert HeldOut(few)[3].keys() == {"raw", "label", "count"}


@pytest.mark.parametrize("workers", [0, 2])
def test_images_are_functions_of_seed_and_count(few: Source, workers: int) -> None:
    """Over the seam between two passes, in any order, batch and worker."""
    stream, counts = TrainingStream(few, 3), list(range(SIZE - 10, SIZE + 10))
    groups = [counts[13:], counts[:7], counts[7:13]]
    loader = DataLoader(stream, batch_sampler=groups, num_workers=workers)
    found = [with_training_draws(part, 3, flip=True) for part in loader]
    whole = with_training_draws(batch(few, counts, seed=3), 3, flip=True)
    rows = torch.tensor([counts.index(count) for group in groups for count in group])
    for name, value in whole.items():
        assert torch.equal(torch.cat([part[name] for part in found]), value[rows])


@pytest.mark.parametrize(("seed", "shift"), [(1, 0), (0, 1), (0, 2**32)])
def test_another_seed_or_count_is_other_noise(seed: int, shift: int, few: Source) -> None:
    one = batch(few, [0, 1, 2])
    other = one | {"count": one["count"] + shift}
    one, other = with_training_draws(one, 0, False), with_training_draws(other, seed, False)
    assert torch.equal(one["raw"], other["raw"])
    assert not bool((one["noise"] == other["noise"]).any())
    assert not bool((one["uniform"] == other["uniform"]).any())


def test_about_half_of_the_images_are_flipped_and_nothing_else_changes(digits: Source) -> None:
    drawn = batch(digits, list(range(200)))
    plain, flipping = (with_training_draws(drawn, 0, flip) for flip in (False, True))
    flipped = (flipping["raw"] == plain["raw"].flip(-1)).flatten(1).all(1)
    same = (flipping["raw"] == plain["raw"]).flatten(1).all(1)
    assert bool((flipped | same).all()) and 70 < flipped.sum() < 130
    assert equal({**plain, "raw": flipping["raw"]}, flipping)
    assert abs(torch.corrcoef(torch.stack([flipped, plain["uniform"][:, 0]]))[0, 1]) < 0.2


def test_uniforms_stay_inside_their_interval(few: Source) -> None:
    """σ is a quantile: at 0 or 1 it would be 0 or infinite."""
    counts = {"count": torch.arange(2_000), "raw": torch.zeros(2_000, 1)}
    uniform = with_training_draws(counts, 0, False)["uniform"]
    assert uniform.dtype == torch.float32 and uniform.shape == (2_000, 2)
    assert bool(LogNormal().quantile(uniform).isfinite().all())
    assert_close(uniform.mean(0), torch.tensor([0.5, 0.5]), rtol=0, atol=0.03)


@pytest.fixture
def held_out() -> Item:
    source = HeldOut(Digits(labels=True).open().held_out)
    return default_collate([source[i] for i in range(len(source))])


def test_held_out_noise_is_fixed_and_no_training_images(held_out: Item) -> None:
    whole = with_held_out_draws(held_out, 0)
    part = with_held_out_draws({name: value[5:9] for name, value in held_out.items()}, 0)
    assert equal({name: value[5:9] for name, value in whole.items()}, part)
    assert not bool((whole["noise"] == with_training_draws(held_out, 0, False)["noise"]).any())


def test_held_out_levels_fill_their_distribution_evenly(held_out: Item) -> None:
    """So the held-out loss is comparable between runs of any data set of some size."""
    levels = with_held_out_draws(held_out, 0)["uniform"][:, 0]
    golden = (0.5 + (5**0.5 - 1) / 2 * torch.arange(len(levels), dtype=torch.float64)) % 1
    assert_close(levels.double(), golden, rtol=0, atol=1e-6)
    counts = torch.histc(levels, bins=10, min=0, max=1) / len(levels)
    assert_close(counts, torch.full((10,), 0.1), rtol=0, atol=0.01)


def test_held_out_labels_are_never_hidden(held_out: Item) -> None:
    assert with_held_out_draws(held_out, 0)["uniform"][:, 1].min() >= 1


def test_what_training_and_validation_are_given(
    make_trainer, module: DiffusionModule, data: DiffusionData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loader brings three tensors; the noise comes on the device, by the stage."""
    met: list[tuple[bool, Item]] = []
    parts = module.loss_parts

    def loss_parts(batch: Item) -> Item:
        met.append((module.training, batch))
        return parts(batch)

    monkeypatch.setattr(module, "loss_parts", loss_parts)
    trainer = make_trainer(max_steps=2, limit_val_batches=1, val_check_interval=1)
    trainer.fit(module, data)
    trainer.validate(module, data, verbose=False)
    assert [training for training, _ in met] == [True, False, True, False, False]
    for training, given in met:
        bare = {name: given[name] for name in ("raw", "label", "count")}
        drawn = with_training_draws(bare, 0, False) if training else with_held_out_draws(bare, 0)
        assert equal(given, drawn)
    assert [given["count"][0].item() for training, given in met if training] == [0, 8]
