"""Linear inverse problems: the posterior of a Gaussian, in closed form."""

import pytest
import torch
from torch.testing import assert_close

from energydiff.denoisers import build_denoiser
from energydiff.energies import GaussianMixture, LinearInverse
from energydiff.errors import UserError
from energydiff.potentials import MLP
from energydiff.sampling import MALA, Euler, Heun, certify, karras_sigmas

STD, NOISE = 0.7, 0.2
OPERATOR = torch.tensor([[1.0, 0.5, 0.0, 0.0], [0.0, -1.0, 2.0, 0.3]]).double()
TRUTH = torch.tensor([0.5, -0.2, 0.8, 0.1]).double()
Y = OPERATOR @ TRUTH
MEAN = torch.tensor([[0.1, 0.0, -0.2, 0.3]]).double()
PRIOR = GaussianMixture(MEAN, STD)
POSTERIOR = LinearInverse(PRIOR, OPERATOR, Y, NOISE, STD)


def exact_posterior():
    """Mean and covariance of x0 given y."""
    precision = torch.eye(4).double() / STD**2 + OPERATOR.T @ OPERATOR / NOISE**2
    covariance = torch.linalg.inv(precision)
    return covariance @ (MEAN[0] / STD**2 + OPERATOR.T @ Y / NOISE**2), covariance


@pytest.mark.parametrize("sigma", [0.05, 0.4, 3.0])
def test_its_denoiser_is_the_posterior_mean(sigma: float) -> None:
    """E[x0 | x, y]: data, prior and measurement are all Gaussian."""
    x = torch.randn(5, 4).double()
    precision = torch.eye(4).double() * (1 / STD**2 + 1 / sigma**2)
    precision = precision + OPERATOR.T @ OPERATOR / NOISE**2
    evidence = MEAN / STD**2 + x / sigma**2 + OPERATOR.T @ Y / NOISE**2
    expected = torch.linalg.solve(precision, evidence.T).T
    assert_close(POSTERIOR.denoise(x, sigma), expected)


@pytest.mark.parametrize("sigma", [0.05, 0.4, 3.0])
def test_its_energy_is_that_of_the_noisy_posterior_up_to_one_constant(sigma: float) -> None:
    """−log ∫ p0(x0) p(y|x0) N(x; x0, σ²) dx0: the same constant at every x and every σ."""
    mean, covariance = exact_posterior()
    x = torch.randn(5, 4).double()
    spread = covariance + sigma**2 * torch.eye(4).double()
    noisy = torch.distributions.MultivariateNormal(mean, spread)
    measured = NOISE**2 * torch.eye(2).double() + STD**2 * OPERATOR @ OPERATOR.T
    evidence = torch.distributions.MultivariateNormal(OPERATOR @ MEAN[0], measured).log_prob(Y)
    scale = torch.log(2 * torch.pi * torch.tensor(NOISE).double() ** 2)  # likelihood at most 1
    assert_close(POSTERIOR(x, sigma), -noisy.log_prob(x) - evidence - scale)


def test_samples_have_the_posterior_mean_and_spread() -> None:
    mean, covariance = exact_posterior()
    sigmas = karras_sigmas(24, 0.01, 20.0)
    x = Heun(sigmas)(POSTERIOR, seeds=range(4000), trace=False).samples.double()
    assert_close(x.mean(0), mean, rtol=0, atol=0.05)
    assert_close(x.T.cov(), covariance, rtol=0.1, atol=0.02)


def test_chains_agree() -> None:
    mean, covariance = exact_posterior()
    chain = MALA(0.05, updates=40, step_size=0.5)
    x = chain(POSTERIOR, mean.expand(600, 4), seeds=range(600), trace=False).samples
    assert_close(x.mean(0), mean, rtol=0, atol=0.12)
    assert bool((x.var(0) < 1.3 * covariance.diag() + 0.01).all())


def test_the_theorem_holds_for_it() -> None:
    """The likelihood is at most 1, so V of the posterior falls in both parts."""
    x = 20 * torch.randn(200, 4).double()
    certificate = certify(Euler(karras_sigmas(20, 0.02, 20.0), True)(POSTERIOR, x_init=x).trace)
    assert certificate.holds and certificate.claim == "observed"
    assert (certificate.descent_rises, certificate.landscape_rises) == (0, 0)
    assert certificate.bound_misses == 0


def test_known_entries_are_kept_and_the_rest_filled_in() -> None:
    """Inpainting a mixture: two modes agree with what is seen, one does not."""
    means = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, -1.0], [-1.0, -1.0, 0.0]]).double()
    seen = torch.eye(3).double()[:2]
    energy = LinearInverse(GaussianMixture(means, 0.05), seen, torch.ones(2).double(), 0.05, 1.0)
    x = Heun(karras_sigmas(30, 0.02, 10.0), True)(energy, seeds=range(200), trace=False).samples
    kept = ((x[:, :2] - 1).abs() < 0.2).all(1) & ((x[:, 2].abs() - 1).abs() < 0.3)
    assert kept.double().mean().item() > 0.97  # the likelihood is an approximation for a mixture
    assert 0.35 < (x[:, 2] > 0).double().mean().item() < 0.65


def test_every_sample_may_have_its_own_measurement() -> None:
    y = torch.randn(3, 2).double()
    x = torch.randn(3, 4).double()
    together = LinearInverse(PRIOR, OPERATOR, y, NOISE, STD)(x, 0.5)
    alone = [LinearInverse(PRIOR, OPERATOR, y[i], NOISE, STD)(x[i : i + 1], 0.5) for i in range(3)]
    assert_close(together, torch.cat(alone))


def test_a_learned_prior_is_guided() -> None:
    """The gradient through D of a network, under no_grad as samplers call it."""
    model = build_denoiser(MLP((4,), width=16), 0.5).double().eval()
    energy = LinearInverse(model, OPERATOR, Y, NOISE, 0.5)
    x = torch.randn(3, 4).double()
    expected = torch.autograd.functional.jacobian(lambda x: energy(x, 0.5).sum(), x)
    with torch.no_grad():
        assert_close(energy.value_and_grad(x, 0.5)[1], expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((OPERATOR[:, :3], Y, 0.1, 1.0), "operator must be"),
        ((OPERATOR, Y[:1], 0.1, 1.0), "operator must be"),
        ((OPERATOR, Y, 0.0, 1.0), "sigma_y is 0.0"),
        ((OPERATOR, Y, 0.1, -1.0), "sigma_data -1.0"),
    ],
)
def test_a_problem_that_is_none_is_refused(arguments, message: str) -> None:
    with pytest.raises(UserError, match=message):
        LinearInverse(PRIOR, *arguments)
