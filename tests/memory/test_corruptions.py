"""Corruptions: what is hidden, what is known, and that a sample's depends on its seed alone."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from energydiff.errors import UserError
from energydiff.memory import BitFlips, Blur, Corruption, GaussianNoise, Masking, Occlusion

ALL = [
    GaussianNoise(0.5),
    Masking(0.3),
    Occlusion(2, 3),
    Occlusion(4, 8, at=(4, 0)),
    BitFlips(0.1),
    Blur(1.0),
]


def signs(*shape: int) -> Tensor:
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(0)) * 2.0 - 1


@pytest.mark.parametrize("corruption", ALL, ids=repr)
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_known_is_as_it_was(corruption: Corruption, channels: int) -> None:
    x = signs(4, channels, 8, 8)
    before = x.clone()
    bad = corruption(x)
    assert torch.equal(x, before) and bad.x.shape == x.shape and bad.x.dtype == x.dtype
    assert not torch.equal(bad.x, x)
    if bad.known is not None:
        assert bad.known.shape == x.shape and bad.known.dtype is torch.bool
        assert torch.equal(bad.x[bad.known], x[bad.known])
        assert bool((bad.x[~bad.known] == 0).all())
        assert torch.equal(bad.known, bad.known[:, :1].expand_as(x)), "all channels alike"


@pytest.mark.parametrize("corruption", ALL, ids=repr)
def test_a_seed_gives_the_same_corruption_in_any_batch(corruption: Corruption) -> None:
    x = signs(1, 1, 8, 8).expand(4, 1, 8, 8)
    whole, part = corruption(x, seeds=[5, 6, 7, 8]).x, corruption(x[:2], seeds=[7, 5]).x
    assert torch.equal(part, whole[[2, 0]])
    fixed = isinstance(corruption, Blur) or getattr(corruption, "at", None) is not None
    assert torch.equal(whole[0], whole[1]) == fixed


def test_amounts() -> None:
    x = signs(200, 1, 8, 8)
    assert_close((GaussianNoise(0.5)(x).x - x).std(), torch.tensor(0.5), rtol=0.02, atol=0)
    masked, flipped = Masking(0.3)(x).known, BitFlips(0.1)(x).x != x
    assert masked is not None and (~masked).flatten(1).sum(1).tolist() == [19] * 200
    assert flipped.flatten(1).sum(1).tolist() == [6] * 200
    block = Occlusion(2, 3)(x).known
    assert block is not None and (~block).flatten(1).sum(1).tolist() == [6] * 200
    assert bool((~block).any(0).all()), "it can be anywhere"


def test_blur_keeps_the_mean_and_spreads_a_point_as_a_gaussian() -> None:
    x = torch.zeros(1, 1, 31, 31, dtype=torch.float64)
    x[..., 15, 15] = 1
    y = Blur(1.5)(x).x[0, 0]
    at = torch.arange(31.0, dtype=torch.float64) - 15
    assert_close(y.sum(), torch.tensor(1.0).double())
    assert_close((y.sum(0) * at**2).sum(), torch.tensor(1.5**2).double(), rtol=0.02, atol=0)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: GaussianNoise(0.0), "std"),
        (lambda: Masking(1.5), "fraction"),
        (lambda: BitFlips(-0.1), "fraction"),
        (lambda: Blur(0.0), "radius"),
        (lambda: Occlusion(9, 1)(signs(1, 8, 8)), "does not fit"),
        (lambda: Occlusion(4, 4, at=(5, 0))(signs(1, 8, 8)), "does not fit"),
        (lambda: Occlusion(1, 1)(signs(1, 8)), "takes images"),
        (lambda: Blur(1.0)(signs(1, 8)), "takes images"),
        (lambda: BitFlips(0.1)(0.5 * signs(1, 8)), "-1 and"),
        (lambda: Masking(0.1)(signs(2, 8), seeds=[1]), "one seed for each"),
    ],
)
def test_mistakes_are_named(make, match: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=match):
        make()
