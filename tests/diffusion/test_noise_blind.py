"""Objectives of noise-blind energies: their population optima in closed form, and the coupling.

For data N(0, s²I), s = 0 being the single point 0, everything is radial: given γ, x_γ ~ N(0, vI)
with v = γ²s² + (1 − γ)², and E[ε − x0 | x, γ] = (1 − γ − γs²) x/v. So the optimum of equilibrium
matching is ∇E = λ k(‖x‖) x, k(r) = E[c(γ) (1 − γ − γs²)/v | ‖x_γ‖ = r], a gradient.
"""

from dataclasses import replace
from itertools import permutations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from energydiff.denoisers import build_denoiser
from energydiff.diffusion import (
    DenoisingScoreMatching,
    DualScoreMatching,
    EnergyMatching,
    EquilibriumMatching,
    NoisyBatch,
    UniformTime,
)
from energydiff.diffusion.noise_blind import optimal_pairs
from energydiff.energies import Energy
from energydiff.errors import UserError
from energydiff.potentials import MLP

DIM = 4
OBJECTIVE = EquilibriumMatching(truncation=0.6, scale=3.0)


class RadialOptimum(Energy):
    """The optimum above, times a factor; k(r) by quadrature over γ."""

    noise_blind = True
    shape = (DIM,)

    def __init__(self, std: float, factor: float = 1.0) -> None:
        super().__init__()
        self.std, self.factor = std, factor

    def forward(self, x: Tensor, sigma: object = 1.0, label: Tensor | None = None) -> Tensor:
        raise NotImplementedError  # only its gradient is asked for

    def k(self, r: Tensor) -> Tensor:
        late = torch.logspace(-6, 0, 4001, dtype=torch.float64)  # 1 − γ, densest near the data
        gamma, step = 1 - late, late * late.log().diff().mean()
        variance = gamma**2 * self.std**2 + late**2
        log_density = -0.5 * DIM * variance.log() - r[:, None] ** 2 / (2 * variance)
        posterior = torch.softmax(log_density + step.log(), dim=1)
        decay = (late / (1 - OBJECTIVE.truncation)).clamp(max=1)
        return posterior @ (decay * (late - gamma * self.std**2) / variance)

    def gradient(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        k = OBJECTIVE.scale * self.factor * self.k(x.norm(dim=1))
        return torch.zeros(len(x)), k[:, None] * x


def batch(std: float, count: int = 6_000) -> NoisyBatch:
    generator = torch.Generator().manual_seed(0)
    draw = torch.randn(2, count, DIM, generator=generator, dtype=torch.float64)
    sigma = UniformTime().quantile(torch.rand(count, generator=generator, dtype=torch.float64))
    return NoisyBatch(std * draw[0], sigma, draw[1], 1.0)


@pytest.mark.parametrize("std", [0.0, 0.6])
def test_the_population_optimum_of_equilibrium_matching_is_where_the_loss_is_least(
    std: float,
) -> None:
    """The residual is uncorrelated with ∇E itself: no factor but 1 lowers the loss."""
    noisy = batch(std)

    def loss(factor: float) -> Tensor:
        return OBJECTIVE(RadialOptimum(std, factor), noisy)["equilibrium"]

    lower, best, higher = loss(0.95), loss(1.0), loss(1.05)
    assert best.mean() < lower.mean()
    assert best.mean() < higher.mean()
    slope = (higher - lower) / 0.1  # derivative at 1: the loss is a parabola in the factor
    assert abs(slope.mean()) < 5 * slope.std() / len(slope) ** 0.5


def test_a_single_point_becomes_a_minimum_of_curvature_scale_over_the_truncated_rest() -> None:
    """Near the point γ is close to 1, where ∇E ← λ(1 − γ)/(1 − a) · x/(1 − γ)."""
    k = RadialOptimum(0.0).k(torch.tensor([1e-3], dtype=torch.float64))
    assert k.item() == pytest.approx(1 / (1 - OBJECTIVE.truncation), rel=1e-3)


def test_the_decay_is_one_up_to_the_truncation_and_zero_at_data() -> None:
    """With a zero energy the loss is the mean square of the target λ c(γ)(ε − x0)."""
    energy = RadialOptimum(0.6, factor=0.0)
    gamma = torch.tensor([0.01, 0.3, 0.6, 0.8, 0.9, 1 - 1e-9], dtype=torch.float64)
    x0, noise = torch.randn(2, len(gamma), DIM, dtype=torch.float64)
    loss = OBJECTIVE(energy, NoisyBatch(x0, 1 / gamma - 1, noise, 1.0))["equilibrium"]
    decay = (loss / (9.0 * (noise - x0).square().mean(1))).sqrt()
    assert_close(
        decay, torch.tensor([1, 1, 1, 0.5, 0.25, 0], dtype=torch.float64), atol=1e-6, rtol=0
    )


class Plane(Energy):
    """E = −⟨y, x⟩."""

    noise_blind = True
    shape = (DIM,)

    def __init__(self, direction: Tensor) -> None:
        super().__init__()
        self.direction = direction

    def forward(self, x: Tensor, sigma: object = 1.0, label: Tensor | None = None) -> Tensor:
        return -(x * self.direction).sum(1)


def test_shifted_noise_is_carried_by_a_plane() -> None:
    """Data ε_π + y: the optimal coupling undoes any π, so −⟨y, x⟩ fits exactly."""
    y, noisy = torch.randn(DIM, dtype=torch.float64), batch(1.0, 32)
    noisy = replace(noisy, x0=noisy.noise[torch.randperm(32)] + y)
    assert EnergyMatching()(Plane(y), noisy)["flow"].abs().max() < 1e-20
    uncoupled = EquilibriumMatching(truncation=0.0, scale=1.0)
    assert uncoupled(Plane(y), noisy)["equilibrium"].mean() > 0.1


def test_pairs_are_the_cheapest_of_all_permutations() -> None:
    x0, noise = batch(0.7, 5).x0, batch(0.7, 5).noise
    costs = {p: (x0 - noise[list(p)]).square().sum().item() for p in permutations(range(5))}
    assert tuple(optimal_pairs(x0, noise).tolist()) == min(costs, key=costs.__getitem__)


def test_time_is_uniform() -> None:
    """γ = 1/(1 + σ) falls evenly from 1 to 0 as u rises."""
    u = torch.rand(100, dtype=torch.float64)
    assert_close(1 / (1 + UniformTime().quantile(u)), 1 - u)


@pytest.mark.parametrize("objective", [EquilibriumMatching(), EnergyMatching()])
def test_a_model_that_knows_its_noise_is_refused(objective: EquilibriumMatching) -> None:
    with pytest.raises(UserError, match="choose parametrization dot"):
        objective.prepare(build_denoiser(MLP((DIM,), 8, 1), 1.0))


@pytest.mark.parametrize("objective", [DenoisingScoreMatching(), DualScoreMatching()])
def test_a_noise_blind_energy_is_refused_by_the_others(objective: DenoisingScoreMatching) -> None:
    with pytest.raises(UserError, match="use EquilibriumMatching"):
        objective.prepare(build_denoiser(MLP((DIM,), 8, 1), 1.0, "coercive"))


@pytest.mark.parametrize(("truncation", "scale"), [(1.0, 4.0), (-0.1, 4.0), (0.8, 0.0)])
def test_numbers_without_a_meaning_are_refused(truncation: float, scale: float) -> None:
    with pytest.raises(UserError, match=f"truncation is {truncation}"):
        EquilibriumMatching(truncation, scale)
