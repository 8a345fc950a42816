"""Noise keyed by (seed, index, stream): the same for ever, apart from all other noise."""

import numpy as np
import pytest
import torch
from torch import Tensor

from energydiff.random import CALIBRATION, SAMPLING, TRAINING, keyed_generator, keyed_normal

SHAPE = (2, 3)


def test_the_same_key_gives_the_same_draw() -> None:
    assert torch.equal(keyed_normal(3, [7], SHAPE), keyed_normal(3, [7], SHAPE))


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda: keyed_normal(4, [7], SHAPE, SAMPLING), id="seed"),
        pytest.param(lambda: keyed_normal(3, [8], SHAPE, SAMPLING), id="index"),
        pytest.param(lambda: keyed_normal(3, [-7], SHAPE, SAMPLING), id="sign"),
        pytest.param(lambda: keyed_normal(3, [7 + 2**32], SHAPE, SAMPLING), id="high-bits"),
        pytest.param(lambda: keyed_normal(7, [3], SHAPE, SAMPLING), id="swapped"),
        pytest.param(lambda: keyed_normal(3, [7], SHAPE, TRAINING), id="stream"),
    ],
)
def test_another_key_gives_another_draw(other) -> None:
    one, two = keyed_normal(3, [7], SHAPE, SAMPLING), other()
    assert not bool((one == two).any())


def test_a_draw_does_not_see_its_batch() -> None:
    alone = keyed_normal(0, [5], SHAPE)
    assert torch.equal(keyed_normal(0, [9, 5, 5], SHAPE)[1:], torch.cat([alone, alone]))


def test_the_noise_is_float32_and_shaped_like_samples() -> None:
    noise = keyed_normal(0, range(4), SHAPE)
    assert noise.dtype == torch.float32 and noise.shape == (4, *SHAPE)


def test_the_global_generators_play_no_part() -> None:
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    one = keyed_normal(0, [0], SHAPE)
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    assert torch.equal(one, keyed_normal(0, [0], SHAPE))


def kurtosis(x: Tensor) -> float:
    return (x.pow(4).mean() / x.square().mean().square()).item()


def test_across_indices_it_is_standard_normal() -> None:
    """Counter-based draws at neighbouring keys must not resemble each other."""
    noise = keyed_normal(0, range(20_000), (2,), CALIBRATION).double()
    first, second = noise[:-1, 0], noise[1:, 0]
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    assert noise.var().item() == pytest.approx(1, abs=0.03)
    assert kurtosis(noise) == pytest.approx(3, abs=0.1)
    assert (first * second).mean().item() == pytest.approx(0, abs=0.03)
    assert noise.prod(1).mean().item() == pytest.approx(0, abs=0.03)


def test_a_long_draw_stays_in_its_stream() -> None:
    """Streams of one key differ in the top word of the counter, which counting never reaches."""
    one, two = (keyed_generator(0, 0, stream).integers(0, 2**63, 4_000) for stream in (0, 1))
    assert not np.isin(one, two).any()
