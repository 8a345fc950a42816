"""The heat residual: zero for exact energies, c′ for a wrong gauge, unbiased with random signs."""

import math

import pytest
import torch
from torch.testing import assert_close

from energydiff.denoisers import build_denoiser
from energydiff.energies import EmpiricalData, Energy, GaussianMixture
from energydiff.errors import UserError
from energydiff.likelihood import heat_residual
from energydiff.potentials import MLP


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class WrongGauge(Energy):
    """E + c(σ) with c = slope · log σ."""

    def __init__(self, energy, slope):
        super().__init__()
        self.exact_energy, self.slope, self.shape = energy, slope, energy.shape

    def forward(self, x, sigma, label=None):
        log_sigma = torch.as_tensor(sigma, dtype=x.dtype).log()
        return self.exact_energy(x, sigma, label) + self.slope * log_sigma


ENERGIES = {
    "mixture": GaussianMixture(normal(0, 5, 1, 2, 3), 0.4),
    "data": EmpiricalData(normal(1, 20, 1, 2, 3)),
}
with_energies = pytest.mark.parametrize("energy", ENERGIES.values(), ids=ENERGIES)


@with_energies
@pytest.mark.parametrize("sigma", [0.3, 1.0, torch.tensor([0.2, 0.5, 1.0, 10.0])], ids=str)
def test_is_zero_for_exact_energies(energy, sigma):
    result = heat_residual(energy, 2 * normal(2, 4, 1, 2, 3), sigma, probes=None)
    assert result.relative.abs().max() < 1e-10
    assert result.score < 1e-10
    assert result.relative.shape == (4,)


@with_energies
def test_of_a_wrong_gauge_is_its_slope(energy):
    x = 2 * normal(3, 4, 1, 2, 3)
    result = heat_residual(WrongGauge(energy, 3.0), x, 0.5, probes=None)
    assert_close(result.residual, torch.full_like(result.residual, 3.0))
    assert result.score > 0.02
    assert bool((result.relative.abs() <= 1).all())


def test_random_signs_are_unbiased_and_belong_to_the_sample():
    energy, x = ENERGIES["mixture"], normal(4, 1, 1, 2, 3)
    many = x.expand(4000, 1, 2, 3)
    residual = heat_residual(energy, many, 0.3, probes=1).residual
    error = float(residual.std()) / len(residual) ** 0.5
    assert 1e-3 < error < 0.1 and abs(float(residual.mean())) < 4 * error
    sharper = heat_residual(energy, many[:1000], 0.3, probes=4).residual
    assert float(sharper.std()) == pytest.approx(float(residual.std()) / 2, rel=0.15)
    parts = [heat_residual(energy, many[i : i + 2], 0.3, first=i).residual for i in (0, 2, 4)]
    assert_close(torch.cat(parts), residual[:6])


def test_local_dimension():
    """0 on an isolated memory, 1 on a ring, 2 on a plane (theory of the heat equation)."""
    isolated = EmpiricalData(4 * torch.eye(3, dtype=torch.float64))
    at_memory = heat_residual(isolated, isolated.data, 0.1, probes=None)
    assert_close(at_memory.local_dimension, torch.zeros(3, dtype=torch.float64))

    angle = torch.arange(1000, dtype=torch.float64) * 2 * math.pi / 1000
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    ring = heat_residual(EmpiricalData(circle), circle[:3], 0.05, probes=None)
    assert_close(ring.local_dimension, torch.ones(3).double(), rtol=0, atol=5e-3)

    flat = torch.tensor([[100.0, 100.0, 0.0, 0.0]], dtype=torch.float64)
    plane = GaussianMixture(torch.zeros(1, 4, dtype=torch.float64), flat)
    middle = heat_residual(plane, torch.zeros(1, 4, dtype=torch.float64), 0.1, probes=None)
    assert float(middle.local_dimension) == pytest.approx(2, abs=1e-4)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_of_a_learned_energy_in_every_mode(mode):
    model = build_denoiser(MLP((3,), width=8, depth=1, num_classes=2), 0.5).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    with mode():
        x, label = normal(5, 4, 3), torch.tensor([-1, 0, 1, 0])
        result = heat_residual(model, x, 0.5, label, probes=None)
    axes = torch.eye(3, dtype=torch.float64)
    laplacian = sum(
        model.hessian_vector_product(x, 0.5, axis.expand(4, 3), label) @ axis for axis in axes
    )
    x, label = x.clone(), label.clone()
    grad = model.value_and_grad(x, 0.5, label)[1]
    assert_close(result.heat, 0.25 * (laplacian - grad.square().sum(1)))
    assert_close(result.slope, model.noise_derivative(x, 0.5, label))
    assert result.score > 1e-3 and not result.residual.requires_grad


def test_needs_a_probe():
    with pytest.raises(UserError, match="probes must be at least 1"):
        heat_residual(ENERGIES["data"], normal(6, 1, 1, 2, 3), 1.0, probes=0)
