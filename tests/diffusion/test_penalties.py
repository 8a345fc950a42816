"""Penalties: nothing for exact energies, something for a planted violation, less with training."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from energydiff.denoisers import build_denoiser
from energydiff.diffusion import (
    DenoisingScoreMatching,
    DualScoreMatching,
    MonotoneDenoiser,
    NoisyBatch,
    Penalised,
    RisingFreeEnergy,
)
from energydiff.diffusion.penalties import Penalty
from energydiff.energies import EmpiricalData, Energy, GaussianMixture
from energydiff.energies.base import sigma_vector
from energydiff.errors import NoEnergyError, UserError
from energydiff.potentials import MLP

DIM = 6


class Quadratic(Energy):
    """V = ½Σ(1 − λ_i)x_i² − k log σ + …: ∇D = diag(λ), and V falls or rises with σ as k says."""

    shape = (DIM,)

    def __init__(self, eigenvalues: list[float], rate: float = 0.0) -> None:
        super().__init__()
        self.curvature, self.rate = 1 - torch.tensor(eigenvalues).double(), rate

    def forward(self, x: Tensor, sigma: Tensor | float, label: Tensor | None = None) -> Tensor:
        sigma = sigma_vector(sigma, x)
        free_energy = 0.5 * (self.curvature * x.square()).sum(1) + self.rate * sigma.log()
        return free_energy / sigma.square() + 0.5 * self.dim * (2 * torch.pi * sigma**2).log()


def noisy(count: int = 8) -> tuple[Tensor, Tensor]:
    return 2 * torch.randn(count, DIM).double(), torch.logspace(-2, 1, count).double()


def prepared(penalty: Penalty, energy: Energy) -> Penalty:
    penalty.prepare(energy)
    return penalty.double()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), discrete=st.booleans())
@pytest.mark.parametrize("penalty", [MonotoneDenoiser, RisingFreeEnergy])
def test_an_exact_energy_pays_nothing(penalty: type[Penalty], seed: int, discrete: bool) -> None:
    torch.manual_seed(seed)
    points = torch.randn(5, DIM).double()
    energy = EmpiricalData(points) if discrete else GaussianMixture(points, 0.3)
    x, sigma = noisy()
    term = prepared(penalty(), energy)
    for _ in range(5):
        assert term(energy, x, sigma, None).max() < 1e-20


def test_a_direction_in_which_the_denoiser_turns_back_is_found_and_charged() -> None:
    """λ = −1 beside λ = 4: one vector carried over the steps nears the former."""
    energy = Quadratic([1.0, 4.0, -1.0, 0.5, 0.0, 1.0])
    term = prepared(MonotoneDenoiser(weight=3.0), energy)
    x, sigma = noisy()
    for _ in range(100):
        loss = term(energy, x, sigma, None)
    assert_close(loss, torch.full_like(loss, 3.0), rtol=1e-2, atol=0)
    assert term.direction[2].abs() > 0.99
    before = term.direction.clone()
    term.eval()(energy, x, sigma, None)
    assert torch.equal(term.direction, before)  # only training moves it


def test_a_free_energy_that_falls_with_the_noise_is_charged_in_nats_per_dimension() -> None:
    """∂V/∂log σ = −k σ-free: the divergence is −k/2σ²."""
    x, sigma = noisy()
    term = prepared(RisingFreeEnergy(weight=2.0), Quadratic([0.0] * DIM))
    falling = term(Quadratic([0.0] * DIM, rate=-0.3), x, sigma, None)
    assert_close(falling, 2 * (0.3 / (2 * sigma.square() * DIM)).square())
    assert term(Quadratic([0.0] * DIM, rate=0.3), x, sigma, None).abs().max() == 0


@pytest.mark.parametrize("penalty", [MonotoneDenoiser, RisingFreeEnergy])
def test_a_few_steps_of_training_reduce_it(penalty: type[Penalty]) -> None:
    torch.manual_seed(0)
    energy = build_denoiser(MLP((DIM,), 16, 2), 0.7).double()
    with torch.no_grad():
        for parameter in energy.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    objective = Penalised(DenoisingScoreMatching(), [penalty()])
    objective.prepare(energy)
    objective.double()
    x0, sigma = 0.7 * torch.randn(64, DIM).double(), torch.logspace(-1, 0.5, 64).double()
    batch = NoisyBatch(x0, sigma, torch.randn_like(x0), 0.7)
    optimizer = torch.optim.Adam(energy.parameters(), 1e-3)
    history = []
    for _ in range(30):
        parts = objective(energy, batch)
        history.append(parts[penalty.name].mean().item())
        optimizer.zero_grad()
        torch.stack(list(parts.values())).sum(0).mean().backward()
        optimizer.step()
    assert max(history[:5]) > 1e-3
    assert history[-1] < 0.5 * max(history[:5])


def test_parts_stand_beside_those_of_the_objective() -> None:
    energy = GaussianMixture(torch.randn(3, DIM).double(), 0.3)
    dual = DualScoreMatching()
    objective = Penalised(dual, [MonotoneDenoiser(), RisingFreeEnergy()])
    objective.prepare(energy)
    x0, sigma = noisy()
    batch = NoisyBatch(x0, sigma, torch.randn_like(x0), 0.7)
    parts = objective(energy, batch)
    names = ("denoising", "time_score", "monotone_denoiser", "rising_free_energy")
    assert tuple(parts) == objective.parts == names
    assert all(part.shape == (8,) for part in parts.values())
    for name, value in dual(energy, batch).items():
        assert_close(parts[name], value)
    assert objective.fixes_gauge
    assert "penalties.0.direction" in objective.state_dict()


def test_what_cannot_be_penalised_is_refused() -> None:
    objective = Penalised(DenoisingScoreMatching(), [MonotoneDenoiser()])
    with pytest.raises(NoEnergyError):
        objective.prepare(build_denoiser(MLP((DIM,), 8, 1), 1.0, "unconstrained"))
    with pytest.raises(UserError, match="noise-blind"):
        objective.prepare(build_denoiser(MLP((DIM,), 8, 1), 1.0, "coercive"))
    with pytest.raises(UserError, match="at least one, and each once"):
        Penalised(DenoisingScoreMatching(), [])
    with pytest.raises(UserError, match=r"MonotoneDenoiser.weight is 0"):
        MonotoneDenoiser(0.0)
