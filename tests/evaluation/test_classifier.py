"""The classifier learns, is a function of its seed, and its features have the stated scale."""

import pytest
import torch

from energydiff.data import Digits
from energydiff.errors import UserError
from energydiff.evaluation import (
    Classifier,
    features,
    frechet_distance,
    gaussian_statistics,
    train_classifier,
)


@pytest.fixture(scope="module")
def digits():
    def stack(source):
        raw, labels = zip(*(source[i] for i in range(len(source))), strict=True)
        return source.normalization.encode(torch.stack(raw)), torch.tensor(labels)

    splits = Digits(labels=True).open()
    return stack(splits.train), stack(splits.held_out)


@pytest.fixture(scope="module")
def trained(digits):
    train, held_out = digits
    return train_classifier(*train, held_out=held_out, epochs=3)


def test_learns_the_digits(trained):
    assert trained.held_out_accuracy >= 0.9
    assert not trained.model.training


@pytest.mark.slow
def test_default_recipe_names_97_percent_of_held_out_digits(digits):
    train, held_out = digits
    assert train_classifier(*train, held_out=held_out).held_out_accuracy >= 0.97


def test_features_are_standardised_on_the_training_images(trained, digits):
    hidden = features(trained.model, digits[0][0])
    assert hidden.shape == (len(digits[0][0]), 64) and hidden.dtype == torch.float32
    torch.testing.assert_close(hidden.mean(0), torch.zeros(64), atol=1e-3, rtol=0)
    assert float(hidden.var(0).sum()) == pytest.approx(1000, rel=0.05)


def test_features_do_not_depend_on_the_batch(trained, digits):
    images = digits[1][0]
    torch.testing.assert_close(
        features(trained.model, images, batch=7),
        features(trained.model, images),
        rtol=1e-3,
        atol=1e-3,
    )


def test_ranks_held_out_images_before_a_gaussian_fit(trained, digits):
    train, held_out = digits[0][0], digits[1][0]
    mean, cov = gaussian_statistics(train.flatten(1))
    draws = torch.randn(300, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values, vectors = torch.linalg.eigh(cov)
    fit = mean + draws @ (vectors * values.clamp_min(0).sqrt()).T
    reference = gaussian_statistics(features(trained.model, train))
    real, gaussian = (
        frechet_distance(*gaussian_statistics(features(trained.model, images)), *reference)
        for images in (held_out, fit.float().view(-1, 1, 8, 8))
    )
    assert gaussian > 4 * real


def test_is_a_function_of_its_seed(digits):
    (images, labels), held_out = digits
    before = torch.get_rng_state()
    losses = []

    def weights(seed):
        result = train_classifier(
            images[:200],
            labels[:200],
            held_out=held_out,
            seed=seed,
            epochs=2,
            on_epoch=lambda epoch, loss: losses.append((epoch, loss)),
        )
        return torch.cat([p.flatten() for p in result.model.parameters()])

    first, again, other = weights(0), weights(0), weights(1)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert losses[:2] == losses[2:4] and [epoch for epoch, _ in losses[:2]] == [1, 2]
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 7, 12), (1, 28, 28), (3, 64, 64)])
def test_takes_images_of_any_size(shape):
    model = Classifier(shape, classes=3).eval()
    assert model(torch.zeros(2, *shape)).shape == (2, 3)
    assert features(model, torch.zeros(2, *shape)).shape == (2, 64)


@pytest.mark.parametrize(("label", "message"), [(-1, "class labels"), (0, "at least two classes")])
def test_refuses_labels_it_cannot_learn(label, message):
    images, labels = torch.zeros(4, 1, 8, 8), torch.full((4,), label)
    with pytest.raises(UserError, match=message):
        train_classifier(images, labels, held_out=(images, labels))


def test_refuses_samples_that_are_not_images():
    with pytest.raises(UserError, match="images"):
        Classifier((2,), classes=2)
