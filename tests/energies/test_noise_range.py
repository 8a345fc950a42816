"""The range of noise a model is made for, checked in one place."""

import math

import pytest
import torch

from energydiff.energies import GaussianMixture, NoiseRange
from energydiff.errors import UserError


def test_it_comes_apart_in_order() -> None:
    low, high = NoiseRange(0.02, 10.0)
    assert (low, high) == (0.02, 10.0)


@pytest.mark.parametrize(
    "ends", [(0.0, 1.0), (2.0, 1.0), (1.0, 1.0), (1.0, math.inf), (math.nan, 1)]
)
def test_what_is_no_range_is_refused(ends: tuple[float, float]) -> None:
    with pytest.raises(UserError, match="0 < sigma_min < sigma_max"):
        NoiseRange(*ends)


def test_a_model_without_one_says_what_to_set() -> None:
    with pytest.raises(UserError, match=r"set model\.noise"):
        GaussianMixture(torch.zeros(1, 2), 1.0).require_noise()
