"""Likelihoods by ODE and by denoising against exact energies of Gaussians and mixtures."""

import math

import pytest
import torch
from torch.testing import assert_close

from energydiff.denoisers import build_denoiser
from energydiff.energies import Denoiser, GaussianMixture
from energydiff.errors import UserError
from energydiff.likelihood import denoising_bound, gaussian_prior, ode_likelihood
from energydiff.potentials import MLP

SIGMA_MIN, SIGMA_MAX = 0.05, 20.0


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixture(dim):
    weights = torch.tensor([0.2, 0.5, 0.3])
    return GaussianMixture(normal(dim, 3, dim), torch.tensor([0.1, 0.3, 0.5]), weights)


def draw(energy, count, seed=0):
    """Samples of an isotropic mixture, without noise."""
    which = torch.multinomial(
        energy.weights, count, True, generator=torch.Generator().manual_seed(seed)
    )
    return energy.means[which] + energy.std[which] * normal(seed, count, *energy.shape)


class Unconstrained(Denoiser):
    """The denoiser of an energy, without the energy."""

    def __init__(self, energy):
        super().__init__()
        self.shape, self.source = energy.shape, energy

    def denoise(self, x, sigma, label=None):
        return self.source.denoise(x, sigma, label)


@pytest.mark.parametrize("dim", [1, 2, 8])
def test_gaussian_by_energy_and_ode(dim):
    """The density of N(m, s² + σ²) written out; the prior here knows the mean."""
    mean, std = normal(1, 1, dim), 0.7
    variance = std**2 + SIGMA_MIN**2
    x = mean + variance**0.5 * normal(2, 6, dim)
    want = (x - mean).square().sum(1) / (2 * variance) + dim / 2 * math.log(2 * math.pi * variance)
    energy = GaussianMixture(mean, std)
    assert_close(energy(x, SIGMA_MIN), want)
    result = ode_likelihood(
        Unconstrained(energy), x, SIGMA_MIN, SIGMA_MAX, energy, probes=None, tolerance=1e-6
    )
    assert_close(result.nats, want, rtol=0, atol=1e-3)
    # x moves along a ray: (x_max − m) = (x − m) √(v_max/v_min).
    stretch = ((std**2 + SIGMA_MAX**2) / variance) ** 0.5
    assert_close(result.latent, mean + stretch * (x - mean), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dim", [1, 2, 8])
@pytest.mark.parametrize("method", ["RK45", "DOP853"])
def test_mixture_by_ode_is_its_energy(dim, method):
    energy = mixture(dim)
    x = draw(energy, 8) + SIGMA_MIN * normal(3, 8, dim)
    result = ode_likelihood(
        energy, x, SIGMA_MIN, SIGMA_MAX, energy, probes=None, method=method, tolerance=1e-6
    )
    assert_close(result.nats, energy(x, SIGMA_MIN), rtol=0, atol=1e-3)
    assert result.nfe > 20


def test_gaussian_prior_is_known_at_every_noise():
    x = normal(4, 5, 2, 3)
    variance = 0.8**2 + 3.0**2
    want = x.square().sum((1, 2)) / (2 * variance) + 3 * math.log(2 * math.pi * variance)
    assert_close(gaussian_prior((2, 3), 0.8).double()(x, 3.0), want, rtol=1e-6, atol=1e-6)


def test_random_signs_agree_within_their_error_and_belong_to_the_sample():
    energy = GaussianMixture(normal(5, 3, 4), torch.rand(3, 4).double() + 0.1)
    x = energy.means[:1] + 0.1 * normal(6, 1, 4)
    many = x.expand(300, 4)
    nats = ode_likelihood(energy, many, SIGMA_MIN, SIGMA_MAX, energy, tolerance=1e-4).nats
    error = float(nats.std()) / len(nats) ** 0.5
    assert 1e-3 < error < 0.2
    assert abs(float(nats.mean() - energy(x, SIGMA_MIN))) < 4 * error + 1e-3
    part = ode_likelihood(energy, many[7:10], SIGMA_MIN, SIGMA_MAX, energy, first=7, tolerance=1e-4)
    assert_close(part.nats, nats[7:10], rtol=0, atol=1e-2)  # the step sizes are another batch's


@pytest.mark.parametrize("parametrization", ["inner_product", "unconstrained"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_ode_density_of_a_learned_model_integrates_to_one(parametrization, mode):
    """By quadrature over a grid: normalised whatever the weights, energy or not."""
    backbone = MLP((1,), width=8, depth=1, num_classes=2)
    model = build_denoiser(backbone, 0.5, parametrization).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    prior = gaussian_prior((1,), 0.5).double()
    with mode():
        grid = torch.linspace(-12, 12, 2401, dtype=torch.float64)[:, None]
        label = torch.ones(len(grid), dtype=torch.long)
        result = ode_likelihood(model, grid, 0.3, 5.0, prior, label, probes=None)
        assert float((-result.nats).exp().sum() * 0.01) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("dim", [1, 2, 8])
def test_bound_is_tight_for_exact_denoisers(dim):
    """For each clean x0 it is E_ε of the energy of x0 + σ_min ε."""
    energy = mixture(dim)
    x0 = draw(energy, 1, seed=1).expand(2000, dim)
    bound = denoising_bound(energy, x0, SIGMA_MIN, SIGMA_MAX, energy, levels=20)
    nll = energy(x0 + SIGMA_MIN * normal(8, *x0.shape), SIGMA_MIN)
    error = float((bound.var() + nll.var()).div(len(x0)).sqrt())
    assert error < 0.11 * dim**0.5
    assert abs(float(bound.mean() - nll.mean())) < 4 * error


class Shrunk(Unconstrained):
    """A worse denoiser, D/2."""

    def denoise(self, x, sigma, label=None):
        return super().denoise(x, sigma, label) / 2


def test_bound_exceeds_the_truth_by_the_denoisers_error():
    """On average over data by ∫ E‖D − D_θ‖²/σ² dlog σ; here N(0, s²) and D_θ = D/2, in closed form:
    E‖D/2‖²/σ² = (d/4) s⁴/(s²+σ²)/σ²."""
    dim, std, low, high = 2, 1.0, 0.5, 20.0
    energy = GaussianMixture(torch.zeros(1, dim, dtype=torch.float64), std)
    x0 = std * normal(9, 2000, dim)
    log_sigma = torch.linspace(math.log(low), math.log(high), 4001, dtype=torch.float64)
    variance = (2 * log_sigma).exp()
    gap = torch.trapezoid(dim / 4 * std**4 / (std**2 + variance) / variance, log_sigma)
    entropy = dim / 2 * math.log(2 * math.pi * math.e * (std**2 + low**2))
    bound = denoising_bound(Shrunk(energy), x0, low, high, energy, levels=24)
    error = float(bound.std()) / len(x0) ** 0.5
    assert float(gap) > 8 * error
    assert abs(float(bound.mean()) - entropy - float(gap)) < 4 * error


def test_bound_noise_belongs_to_the_sample():
    energy, x0 = mixture(2), draw(mixture(2), 6)
    whole = denoising_bound(energy, x0, SIGMA_MIN, SIGMA_MAX, energy, levels=4)
    parts = [
        denoising_bound(energy, x0[i : i + 2], SIGMA_MIN, SIGMA_MAX, energy, levels=4, first=i)
        for i in (0, 2, 4)
    ]
    assert_close(torch.cat(parts), whole)


@pytest.mark.parametrize("measure", [ode_likelihood, denoising_bound])
def test_user_errors(measure):
    energy = mixture(2)
    with pytest.raises(UserError, match="0 < sigma_min < sigma_max"):
        measure(energy, normal(0, 3, 2), 1.0, 0.5, energy)
    with pytest.raises(UserError, match="takes floating point samples"):
        measure(energy, normal(0, 3, 4), 0.1, 1.0, energy)


class Power(Unconstrained):
    """dx/dlog σ = x^n: for n = 3 it reaches infinity before σ_max."""

    def __init__(self, energy, n):
        super().__init__(energy)
        self.n = n

    def denoise(self, x, sigma, label=None):
        return x - x**self.n


@pytest.mark.parametrize(
    "n, match", [(0.5, "is not finite at σ = 0.1"), (3, "could not be solved")]
)
def test_a_path_that_does_not_reach_sigma_max_says_so(n, match):
    energy = mixture(1)
    with pytest.raises(UserError, match=match):
        ode_likelihood(Power(energy, n), -torch.ones(2, 1).double(), 0.1, 10.0, energy)
