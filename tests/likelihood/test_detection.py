"""AUROC of an exact energy against its closed form."""

import math

import numpy as np
import pytest
import torch

from energydiff.data import Arrays, Digits
from energydiff.energies import GaussianMixture
from energydiff.errors import UserError
from energydiff.likelihood import ood_auroc


@pytest.fixture(scope="module")
def gaussians(tmp_path_factory):
    """1,500 samples in one dimension of N(0, 0.5²), and as many of N(0, 1.5²)."""
    rng = np.random.default_rng(0)
    sources = []
    for std in (0.5, 1.5):
        path = tmp_path_factory.mktemp("data") / "gaussian.npy"
        np.save(path, (std * rng.standard_normal((3000, 1))).astype(np.float32))
        sources.append(Arrays(path, held_out=0.5, value_range=(-1.0, 1.0)).open())
    return sources


def energy():
    return GaussianMixture(torch.zeros(1, 1), 0.5)


def test_of_two_gaussians(gaussians):
    """P(|x_out| > |x_in|) = (2/π) arctan of the ratio of their noisy standard deviations."""
    inside, outside = (splits.train for splits in gaussians)
    sigmas = (0.1, 1.0, 5.0)
    got = ood_auroc(energy(), inside, outside, sigmas)
    want = [2 / math.pi * math.atan(math.sqrt((1.5**2 + s**2) / (0.5**2 + s**2))) for s in sigmas]
    assert got.numpy() == pytest.approx(want, abs=0.04)
    assert want[0] > 0.75 and want[2] < 0.55  # noise hides the difference
    turned = ood_auroc(energy(), outside, inside, sigmas)
    # Another noise for each: four standard errors of the difference.
    assert turned.numpy() == pytest.approx(1 - got.numpy(), abs=0.06)


def test_is_at_chance_for_one_source(gaussians):
    splits = gaussians[0]
    got = ood_auroc(energy(), splits.train, splits.held_out, (0.1, 1.0))
    assert got.numpy() == pytest.approx(0.5, abs=0.04)


def test_does_not_depend_on_the_batch_size(gaussians):
    part, other = (s.train.select(np.arange(50)) for s in gaussians)
    areas = [ood_auroc(energy(), part, other, (0.5,), batch_size=b) for b in (7, 50, 1000)]
    assert areas[0] == areas[1] == areas[2]
    assert areas[0] != ood_auroc(energy(), part, other, (0.5,), seed=1)


def test_needs_samples_of_the_energys_shape(gaussians):
    inside = gaussians[0].train
    digits = Digits().open().held_out
    with pytest.raises(UserError, match=r"samples of shape \(1,\)"):
        ood_auroc(energy(), inside, digits, (0.5,))
    with pytest.raises(UserError, match="a source has 0"):
        ood_auroc(energy(), inside.select(np.arange(0)), inside, (0.5,))
