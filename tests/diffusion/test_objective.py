"""The denoising loss: its scale, its optimum and its shape."""

import math
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from energydiff.denoisers import EnergyDenoiser, build_denoiser
from energydiff.diffusion import (
    DenoisingScoreMatching,
    DualScoreMatching,
    EnergyMatching,
    EquilibriumMatching,
    MaximumLikelihood,
    NoisyBatch,
    Objective,
    Penalised,
    RisingFreeEnergy,
    denoising_loss,
)
from energydiff.energies import EmpiricalData, Energy, GaussianMixture
from energydiff.errors import NoEnergyError, UserError
from energydiff.potentials import MLP, NaturalConvex

DIM, STD = 8, 0.6
LEVELS = [0.02, 0.3, 1.0, 10.0]


def gaussian_batch(count: int, sigma: float, std: float = STD) -> NoisyBatch:
    """Data of RMS ``std``; σ_d is STD."""
    x0 = std * torch.randn(count, DIM, dtype=torch.float64)
    return NoisyBatch(x0, torch.full_like(x0[:, 0], sigma), torch.randn_like(x0), STD)


def test_a_noisy_batch_is_data_plus_noise() -> None:
    x0, noise = torch.randn(2, 2, 1, 4, 4)
    x = NoisyBatch(x0, torch.tensor([0.5, 3.0]), noise, STD).x
    assert_close(x, torch.stack([x0[0] + 0.5 * noise[0], x0[1] + 3.0 * noise[1]]))


@pytest.mark.parametrize("sigma", LEVELS)
@pytest.mark.parametrize("parametrization", ["inner_product", "sum", "unconstrained"])
def test_a_model_that_knows_nothing_scores_one(sigma: float, parametrization: str) -> None:
    """D = c_skip x on data of RMS σ_d: the raw network's target has unit variance."""
    model = build_denoiser(MLP((DIM,), width=8, depth=1), STD, parametrization).double()
    loss = denoising_loss(model, gaussian_batch(4_000, sigma)).mean().item()
    assert loss == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("sigma", LEVELS)
@pytest.mark.parametrize("std", [0.2, 0.6, 1.5])
def test_the_exact_denoiser_of_a_gaussian_scores_its_closed_form(sigma: float, std: float) -> None:
    """Posterior variance s²σ²/(s²+σ²) times the weight (σ²+σ_d²)/(σσ_d)², data of RMS s."""
    energy = GaussianMixture(torch.zeros(1, DIM, dtype=torch.float64), std)
    expected = std**2 / (std**2 + sigma**2) * (sigma**2 + STD**2) / STD**2
    loss = denoising_loss(energy, gaussian_batch(4_000, sigma, std)).mean().item()
    assert loss == pytest.approx(expected, rel=0.03)


def test_a_memorised_image_costs_nothing() -> None:
    """With one point in the data set D is that point at every noise."""
    point = torch.randn(1, 2, 3, dtype=torch.float64)
    x0, sigma = point.expand(4, 2, 3), torch.tensor(LEVELS, dtype=torch.float64)
    loss = denoising_loss(EmpiricalData(point), NoisyBatch(x0, sigma, torch.randn_like(x0), STD))
    assert_close(loss, torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-9)


def test_every_image_has_a_loss_of_its_own() -> None:
    """(B,), each with its σ, unmoved by the rest of the batch."""
    energy = GaussianMixture(torch.randn(3, 1, 4, 4, dtype=torch.float64), 0.1)
    x0 = torch.randn(5, 1, 4, 4, dtype=torch.float64)
    noise, sigma = torch.randn_like(x0), torch.logspace(-1, 1, 5, dtype=torch.float64)
    together = denoising_loss(energy, NoisyBatch(x0, sigma, noise, STD))
    alone = [
        denoising_loss(energy, NoisyBatch(x0[i, None], sigma[i, None], noise[i, None], STD))
        for i in range(5)
    ]
    assert together.shape == (5,)
    assert_close(together, torch.cat(alone))


def dual_parts(energy: Energy, batch: NoisyBatch) -> dict[str, Tensor]:
    return DualScoreMatching(time_weight=0.5, noise_power=0.8)(energy, batch)


def test_the_denoising_part_of_the_dual_loss_is_the_denoising_loss() -> None:
    energy = GaussianMixture(torch.randn(3, DIM, dtype=torch.float64), 0.1)
    batch = gaussian_batch(5, 0.4)
    parts = dual_parts(energy, batch)
    assert tuple(parts) == DualScoreMatching.parts
    assert_close(parts["denoising"], denoising_loss(energy, batch))


@pytest.mark.parametrize("sigma", LEVELS)
def test_the_time_score_of_an_exact_energy_meets_its_target_on_average(sigma: float) -> None:
    """E[∂E/∂log σ | x] is the target's posterior mean: the residual is uncorrelated with any
    function of x, and its mean square is below the target's variance 2d."""
    energy = GaussianMixture(torch.zeros(1, DIM, dtype=torch.float64), STD)
    batch = gaussian_batch(20_000, sigma)
    x = batch.x
    residual = energy.noise_derivative(x, batch.sigma) - (DIM - batch.noise.square().sum(1))
    error = residual.std().item() / len(x) ** 0.5
    assert abs(residual.mean().item()) < 5 * error
    correlated = residual * (x.square().sum(1) - x.square().sum(1).mean())
    assert abs(correlated.mean().item()) < 5 * correlated.std().item() / len(x) ** 0.5
    part = dual_parts(energy, batch)["time_score"]
    weight = 0.5 * (sigma / STD) ** 0.8
    assert part.mean().item() == pytest.approx(
        weight * residual.square().mean().item() / DIM**2, rel=1e-9
    )
    assert part.mean().item() < 1.05 * weight * 2 / DIM


def test_a_wrong_gauge_raises_the_time_score_alone() -> None:
    energy = build_denoiser(MLP((DIM,), width=8, depth=1), STD).double()
    assert isinstance(energy, EnergyDenoiser)
    batch = gaussian_batch(4_000, 0.5)
    right = dual_parts(energy, batch)
    energy.gauge.set(torch.linspace(-3, 3, 65), torch.linspace(-30, 30, 65))
    wrong = dual_parts(energy, batch)
    assert_close(wrong["denoising"], right["denoising"])
    assert wrong["time_score"].mean() > 2 * right["time_score"].mean()


def test_an_unconstrained_denoiser_has_no_time_score() -> None:
    model = build_denoiser(MLP((DIM,), width=8, depth=1), STD, "unconstrained").double()
    with pytest.raises(NoEnergyError):
        dual_parts(model, gaussian_batch(2, 0.5))


def test_a_weight_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="time_weight is 0"):
        DualScoreMatching(time_weight=0)
    with pytest.raises(UserError, match="noise_power is 3"):
        DualScoreMatching(noise_power=3)


@pytest.mark.parametrize("sigma", LEVELS)
def test_the_likelihood_is_in_nats_per_dimension_and_best_for_the_data_s_own_density(
    sigma: float,
) -> None:
    """The excess is KL(p_σ ‖ q_σ)/d, here ½(r − 1 − log r) with r the ratio of variances."""
    batch = gaussian_batch(20_000, sigma)
    variance = STD**2 + sigma**2
    entropy = 0.5 * math.log(2 * math.pi * math.e * variance)
    for std in (0.4, STD, 0.9):
        energy = GaussianMixture(torch.zeros(1, DIM, dtype=torch.float64), std)
        (part,) = MaximumLikelihood()(energy, batch).values()
        ratio = variance / (std**2 + sigma**2)
        expected = entropy + 0.5 * (ratio - 1 - math.log(ratio))
        error = part.std().item() / len(part) ** 0.5
        assert part.mean().item() == pytest.approx(expected, abs=5 * error)


@pytest.mark.parametrize(
    ("objective", "takes"),
    [
        (DenoisingScoreMatching(), True),
        (DualScoreMatching(), True),
        (Penalised(DualScoreMatching(), [RisingFreeEnergy()]), True),
        (Penalised(MaximumLikelihood(), [RisingFreeEnergy()]), False),
        (EquilibriumMatching(), False),
        (EnergyMatching(), False),
    ],
)
def test_an_objective_that_learns_from_no_mean_says_so(objective: Objective, takes: bool) -> None:
    refused = pytest.raises(UserError, match="has no use for the mean of a teacher")
    with nullcontext() if takes else refused:
        objective.require_mean()


def test_only_a_density_by_construction_is_trained_by_its_likelihood() -> None:
    objective = MaximumLikelihood()
    natural = build_denoiser(NaturalConvex((DIM,), 4, 3), STD, "natural").double().train()
    objective.prepare(natural)
    (part,) = objective(natural, gaussian_batch(5, 0.5)).values()
    assert part.shape == (5,)
    part.mean().backward()
    assert all(bool(p.grad.any()) for p in natural.parameters())
    taught = replace(gaussian_batch(5, 0.5), mean=torch.zeros(5, DIM))
    with pytest.raises(UserError, match="no use for the mean of a teacher"):
        objective(natural, taught)
    with pytest.raises(UserError, match="EnergyDenoiser is no density by construction"):
        objective.prepare(build_denoiser(MLP((DIM,), width=8, depth=1), STD))
