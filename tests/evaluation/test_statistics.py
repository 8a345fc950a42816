"""Streamed statistics are those of all features, whatever the batches and the ranks."""

import multiprocessing
import sys

import pytest
import torch
import torch.distributed as dist

from energydiff.errors import UserError
from energydiff.evaluation import gaussian_statistics
from energydiff.evaluation.statistics import FeatureStatistics

DIM = 7


@pytest.fixture(scope="module")
def features():
    generator = torch.Generator().manual_seed(0)
    return 3 + torch.randn(101, DIM, generator=generator) @ torch.randn(DIM, DIM)


def assert_same(got, want):
    for a, b in zip(got, want, strict=True):
        assert a.dtype == torch.float64
        assert float((a - b).norm() / b.norm()) < 1e-12


@pytest.mark.parametrize("batch", [1, 13, 101])
def test_equals_the_statistics_of_all_features(features, batch):
    metric = FeatureStatistics(torch.full((DIM,), 2.5))
    for part in features.split(batch):
        metric.update(part)
    metric.update(features[:0])
    assert_same(metric.compute(), gaussian_statistics(features))
    metric.reset()
    metric.update(features[:50])
    assert_same(metric.compute(), gaussian_statistics(features[:50]))


def test_a_large_common_mean_costs_no_digits_after_the_shift(features):
    shift = torch.full((DIM,), 1e6)
    metric = FeatureStatistics(shift)
    far = features.double() + shift
    metric.update(far)
    mean, cov = metric.compute()
    want_mean, want_cov = gaussian_statistics(features)
    assert float((mean - shift - want_mean).norm()) < 1e-8
    # The features themselves are rounded to 1e-10 there; squaring them first would leave 1e-3.
    assert float((cov - want_cov).norm() / want_cov.norm()) < 1e-9


def test_stays_in_float64(features):
    metric = FeatureStatistics(torch.zeros(DIM)).float().half()
    metric.update(features.bfloat16())
    assert all(value.dtype == torch.float64 for value in metric.compute())
    assert not metric.state_dict()


def two_ranks(rank, store, features, want):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    metric = FeatureStatistics(features.mean(0))
    for part in features[rank::2].split(5 + 9 * rank):
        metric.update(part)
    assert_same(metric.compute(), want)
    dist.destroy_process_group()


@pytest.mark.skipif(sys.platform != "linux", reason="forks after torch was imported")
def test_two_ranks_have_the_statistics_of_both(features, tmp_path):
    want = gaussian_statistics(features)
    context = multiprocessing.get_context("fork")
    ranks = [
        context.Process(target=two_ranks, args=(rank, tmp_path / "store", features, want))
        for rank in range(2)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(timeout=60)
        assert rank.exitcode == 0


def test_refuses_what_has_no_covariance(features):
    metric = FeatureStatistics(torch.zeros(DIM))
    metric.update(features[:1])
    with pytest.raises(UserError, match="at least two samples, got 1"):
        metric.compute()
    metric.reset()
    metric.update(features.index_fill(0, torch.tensor([3]), torch.inf))
    with pytest.raises(UserError, match="not finite"):
        metric.compute()
