"""The held-out loss against closed forms."""

import numpy as np
import pytest
import torch

from energydiff.data import Arrays, Digits
from energydiff.energies import Denoiser, GaussianMixture
from energydiff.likelihood import held_out_loss, held_out_losses


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """300 or so samples of N(0.2, 0.5²) in 4 dimensions, in raw units where encode is affine."""
    path = tmp_path_factory.mktemp("data") / "gaussian.npy"
    rng = np.random.default_rng(0)
    np.save(path, (0.2 + 0.5 * rng.standard_normal((600, 4))).astype(np.float32))
    return Arrays(path, held_out=0.5, value_range=(-1.0, 1.0)).open().held_out


class Zero(Denoiser):
    shape = (4,)

    def denoise(self, x, sigma, label=None):
        assert label is None
        return torch.zeros_like(x)


def test_of_zero_is_the_weighted_second_moment(source):
    sigmas = (0.1, 1.0, 7.0)
    x0 = torch.stack([source.normalization.encode(source[i][0]) for i in range(len(source))])
    moment = float(x0.double().square().mean())
    want = [(s**2 + 0.25) / (0.25 * s**2) * moment for s in sigmas]
    got = held_out_losses(Zero(), source, sigmas, 0.5)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert held_out_loss(Zero(), source, sigmas, 0.5) == pytest.approx(np.mean(want), rel=1e-6)


def test_of_the_exact_denoiser_is_the_posterior_variance(source):
    # Posterior variance σ²s²/(σ²+s²), s = σ_d = ½: weighted, exactly 1 at every noise level.
    exact = GaussianMixture(torch.full((1, 4), 0.2), 0.5)
    got = held_out_losses(exact, source, (0.05, 0.5, 5.0), sigma_data=0.5)
    np.testing.assert_allclose(got, 1, atol=0.15)


def test_does_not_depend_on_the_batch_size(source):
    exact = GaussianMixture(torch.full((1, 4), 0.2), 0.5)
    losses = [held_out_loss(exact, source, (0.1, 1.0), 0.5, batch_size=b) for b in (1, 7, 1000)]
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-6)


def test_noise_belongs_to_the_seed_and_the_level(source):
    exact = GaussianMixture(torch.full((1, 4), 0.2), 0.5)

    def losses(*sigmas, seed=0):
        return held_out_losses(exact, source, sigmas, 0.5, seed=seed)

    assert torch.equal(losses(0.5), losses(0.5))
    assert not torch.equal(losses(0.5), losses(0.5, seed=1))
    twice = losses(0.5, 0.5)
    assert twice[0] == losses(0.5)[0] and twice[0] != twice[1]


class Cheat(Denoiser):
    """Returns the class index everywhere: sees its labels or fails."""

    shape, num_classes = (1, 8, 8), 10

    def denoise(self, x, sigma, label=None):
        self.seen.append(label)
        return x


def test_labels_reach_a_conditional_model():
    source = Digits(labels=True).open().held_out
    model = Cheat()
    model.seen = []
    held_out_loss(model, source, (0.5,), 0.8, batch_size=100)
    assert torch.cat(model.seen).tolist() == [source[i][1] for i in range(len(source))]
