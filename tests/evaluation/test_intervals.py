"""Intervals of differences: closed forms, coverage, and what pairing is for."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch_fidelity.metric_kid import kid_features_to_metric

from energydiff.errors import UserError
from energydiff.evaluation import frechet_distance, gaussian_statistics
from energydiff.evaluation.intervals import t_interval
from energydiff.evaluation.kid import kid_difference
from energydiff.evaluation.records import Interval


def normal(n: int, f: int, seed: int) -> Tensor:
    return torch.randn(n, f, generator=torch.Generator().manual_seed(seed))


def test_the_t_interval_is_students() -> None:
    values = [3.1, 2.7, 4.0, 3.3, 2.9]
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = t_interval(values)
    assert (found.mean, found.low, found.high) == pytest.approx(
        (np.mean(values), expected.low, expected.high), rel=1e-12
    )


def test_one_value_has_no_interval() -> None:
    with pytest.raises(UserError, match="two values or more, got 1"):
        t_interval([1.0])


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-2, -1, "better"), (1, 2, "worse"), (-1, 1, "not separable"), (0, 0, "not separable")],
)
def test_the_verdict_is_that_of_the_interval(low: float, high: float, verdict: str) -> None:
    assert Interval((low + high) / 2, low, high).verdict == verdict


def test_the_estimate_is_the_difference_of_two_kids() -> None:
    """torch-fidelity on one subset of everything."""
    a, b, reference = 0.3 + normal(60, 5, 0), normal(60, 5, 1), normal(80, 5, 2)

    def kid(x: Tensor) -> float:
        # Its estimator takes equal sizes: the first 60 of the reference.
        found = kid_features_to_metric(
            x.double(), reference[:60].double(), kid_subsets=1, kid_subset_size=60, verbose=False
        )
        return float(found["kernel_inception_distance_mean"])

    found = kid_difference(a, b, reference[:60], resamples=5)
    assert found.mean == pytest.approx(kid(a) - kid(b), rel=1e-5)


def test_equal_samples_differ_by_nothing() -> None:
    a = normal(40, 4, 0)
    found = kid_difference(a, a, normal(50, 4, 1), resamples=20)
    assert found == Interval(0.0, 0.0, 0.0)


def test_kid_sees_a_shift() -> None:
    a = normal(300, 4, 0)
    assert kid_difference(a, a + 0.3, normal(300, 4, 1)).high < 0  # a is nearer


def test_pairing_narrows_the_interval() -> None:
    """Of samples that nearly agree, row by row; the same rows in another order do not."""
    a, reference = normal(300, 4, 0), normal(300, 4, 1)
    b = a + 0.05 * normal(300, 4, 2)
    paired, shuffled = kid_difference(a, b, reference), kid_difference(a, b.flip(0), reference)
    assert paired.mean == pytest.approx(shuffled.mean, abs=1e-6)
    assert paired.high - paired.low < 0.3 * (shuffled.high - shuffled.low)


def test_the_kid_interval_covers_zero_as_often_as_it_says() -> None:
    """Two independent sets of one distribution, 120 times."""
    inside = 0
    for seed in range(120):
        a, b, reference = (normal(60, 3, 3 * seed + k) for k in range(3))
        found = kid_difference(a, b, reference, resamples=100, seed=seed)
        inside += found.low <= 0 <= found.high
    assert stats.binomtest(inside, 120, 0.95).pvalue > 1e-3


def test_a_model_is_not_separable_from_itself_over_blocks_of_seeds() -> None:
    """Fréchet distances of A against A with other seeds, 200 times: 95 % within binomial error."""
    reference = gaussian_statistics(normal(2_000, 4, 10_000))

    def blocks(seed: int) -> list[float]:
        parts = normal(5 * 60, 4, seed).split(60)
        return [frechet_distance(*gaussian_statistics(part), *reference) for part in parts]

    inside = sum(
        t_interval(np.subtract(blocks(2 * k), blocks(2 * k + 1))).verdict == "not separable"
        for k in range(200)
    )
    assert stats.binomtest(inside, 200, 0.95).pvalue > 1e-3


def test_pairs_need_one_shape() -> None:
    with pytest.raises(UserError, match="one shape"):
        kid_difference(normal(4, 2, 0), normal(5, 2, 0), normal(4, 2, 0))
