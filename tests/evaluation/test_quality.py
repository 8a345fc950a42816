"""Measures against closed forms, an independent computation and torch-fidelity's whole pipeline."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch_fidelity import calculate_metrics, register_feature_extractor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

from energydiff.errors import UserError
from energydiff.evaluation import (
    frechet_distance,
    frechet_infinity,
    gaussian_statistics,
    image_batches,
    kernel_distance,
    measure_quality,
)

pytestmark = pytest.mark.usefixtures("no_network")


PAIRS = 50


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def with_statistics(n, mean, scales, seed):
    """Draws (n, f) whose own mean and covariance diag(scales²) are exact to rounding."""
    draws = normal(n, len(mean), seed=seed)
    draws = torch.linalg.qr(draws - draws.mean(0)).Q * (n - 1) ** 0.5
    return mean + draws * scales


def test_gaussian_features_have_the_closed_form_distance():
    mean, scales = normal(12, seed=1), torch.linspace(0.1, 3, 12, dtype=torch.float64)
    other, widths = normal(12, seed=2), torch.linspace(2, 0.5, 12, dtype=torch.float64)
    samples, reference = (
        with_statistics(n, m, s, n) for n, m, s in ((90, mean, scales), (70, other, widths))
    )
    want = float((mean - other).square().sum() + (scales - widths).square().sum())
    quality = measure_quality(samples, None, reference)
    assert quality.frechet == pytest.approx(want, rel=1e-8)
    assert quality.inception_score is None


@pytest.fixture(scope="module")
def digit_images(labelled):
    """Held-out digits, and training digits with some pixels blackened: (N, 1, 8, 8) uint8."""
    held_out = torch.cat([images for images, _ in image_batches(labelled.held_out, "")])
    train = torch.cat([images for images, _ in image_batches(labelled.train, "")])[:150]
    drop = torch.rand(train.shape, generator=torch.Generator().manual_seed(0)) < 0.1
    return train.masked_fill(drop, 0), held_out[:130]


@pytest.fixture
def registered(digits_extractor):
    """The classifier as torch-fidelity knows extractors."""

    class Registered(FeatureExtractorBase):
        def __init__(self, name, features_list, **kwargs):
            super().__init__(name, features_list)

        @staticmethod
        def get_provided_features_list():
            return "features", "logits"

        @staticmethod
        def get_default_feature_layer_for_metric(metric):
            return "logits" if metric == "isc" else "features"

        def forward(self, images):
            out = digits_extractor(images)
            layers = {
                "features": digits_extractor.features(out),
                "logits": digits_extractor.logits(out),
            }
            return tuple(layers[name] for name in self.features_list)

    name = f"digits-{digits_extractor.digest}"
    register_feature_extractor(name, Registered)
    yield name
    del FEATURE_EXTRACTORS_REGISTRY[name]


class Images(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i]


def test_real_features_agree_with_torch_fidelity_and_scipy(
    digit_images, digits_extractor, registered
):
    samples, held_out = digit_images
    outs = [digits_extractor(images) for images in digit_images]
    reference = digits_extractor.features(outs[1])
    mine = measure_quality(
        digits_extractor.features(outs[0]), digits_extractor.logits(outs[0]), reference
    )
    theirs = calculate_metrics(
        input1=Images(samples),
        input2=Images(held_out),
        feature_extractor=registered,
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        kid_subset_size=min(len(samples), len(held_out)),
        cuda=False,
        save_cpu_ram=True,
        cache=False,
        verbose=False,
    )
    assert mine.frechet == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)
    assert mine.kid == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-6)
    assert mine.inception_score == pytest.approx(theirs["inception_score_mean"], rel=1e-6)
    assert mine.precision == pytest.approx(theirs["precision"], rel=1e-6)
    assert mine.recall == pytest.approx(theirs["recall"], rel=1e-6)
    assert 0 < mine.precision < 1 and 0 < mine.recall < 1 and mine.inception_score > 2

    a, b = (digits_extractor.features(out).double().numpy() for out in outs)
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T))
    shift = a.mean(0) - b.mean(0)
    want = shift @ shift + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root).real
    assert mine.frechet == pytest.approx(want, rel=1e-6)


def test_kid_is_unbiased():
    def distances(shift):
        return torch.tensor(
            [
                kernel_distance(normal(24, 4, seed=2 * i) + shift, normal(30, 4, seed=2 * i + 1))
                for i in range(PAIRS)
            ]
        )

    same, other = distances(0.0), distances(1.0)
    assert abs(same.mean()) < 3 * same.std() / PAIRS**0.5
    assert abs(other.mean() - exact_kid(4, 1.0)) < 3 * other.std() / PAIRS**0.5


def exact_kid(dim, shift):
    """MMD² of N(shift·1, I) and N(0, I): E (xᵀy/d + 1)³ by the moments of xᵀy."""

    def kernel(m1, m2):
        # xᵀy is a sum of d independent products xᵢyᵢ with moments a₁, a₂, a₃.
        a1 = m1 * m2
        a2 = (1 + m1**2) * (1 + m2**2)
        a3 = (m1**3 + 3 * m1) * (m2**3 + 3 * m2)
        s1 = dim * a1
        s2 = dim * a2 + dim * (dim - 1) * a1**2
        s3 = dim * a3 + 3 * dim * (dim - 1) * a2 * a1 + dim * (dim - 1) * (dim - 2) * a1**3
        return s3 / dim**3 + 3 * s2 / dim**2 + 3 * s1 / dim + 1

    return kernel(shift, shift) + kernel(0, 0) - 2 * kernel(shift, 0)


@pytest.mark.parametrize("n", [250, 1000])
def test_extrapolation_comes_nearer_to_the_truth(n):
    dim, shift = 64, torch.zeros(64, dtype=torch.float64)
    shift[0] = 0.037**0.5
    reference = torch.zeros(dim), 0.05 * torch.eye(dim)
    for seed in range(3):
        draws = 0.05**0.5 * normal(n, dim, seed=seed) + shift
        plain = frechet_distance(*gaussian_statistics(draws), *reference)
        extrapolated = frechet_infinity(draws, *reference, seed=seed)
        assert abs(extrapolated - 0.037) < 0.5 * abs(plain - 0.037)


def test_extrapolation_is_a_function_of_its_seed():
    draws, reference = normal(100, 3), (torch.zeros(3), torch.eye(3))
    first, again, other = (frechet_infinity(draws, *reference, seed=seed) for seed in (0, 0, 1))
    assert first == pytest.approx(again, rel=1e-12) and abs(first - other) > 1e-6


@pytest.mark.parametrize("n", [20, 50])
def test_few_samples_are_measured(n):
    quality = measure_quality(normal(n, 64), normal(n, 10), normal(40, 64, seed=1))
    assert all(np.isfinite([quality.frechet, quality.frechet_infinity, quality.kid]))
    assert quality.inception_score >= 1


def test_refuses_too_few_samples_and_what_is_not_finite():
    many = normal(40, 3)
    for pair in ((many[:19], many), (many, many[:19])):
        with pytest.raises(UserError, match="at least 20 samples and reference images"):
            measure_quality(pair[0], None, pair[1])
    with pytest.raises(UserError, match="at least 20"):
        frechet_infinity(many[:19], torch.zeros(3), torch.eye(3))
    with pytest.raises(UserError, match="1 of 40 samples have features that are not finite"):
        measure_quality(many.index_fill(0, torch.tensor([4]), torch.nan), None, many)
