"""The asymmetry of a Jacobian: known for linear fields, zero for energies."""

import pytest
import torch

from energydiff.denoisers import build_denoiser
from energydiff.energies import Denoiser, EmpiricalData, GaussianMixture
from energydiff.landscape import jacobian_asymmetry
from energydiff.potentials import MLP


class Linear(Denoiser):
    """D = M x + shift[label], whatever σ."""

    def __init__(self, matrix):
        super().__init__()
        self.shape, self.num_classes = (len(matrix),), 2
        self.matrix = torch.nn.Parameter(matrix)

    def denoise(self, x, sigma, label=None):
        return x @ self.matrix.T


def points(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("chunk", [1, 3, 128])
def test_linear_field_has_the_asymmetry_of_its_matrix(chunk):
    matrix = points(5, 5)
    want = float((matrix - matrix.T).norm() / (matrix + matrix.T).norm())
    got = jacobian_asymmetry(Linear(matrix), points(2, 5), 0.5, chunk=chunk)
    assert got == pytest.approx(want, rel=1e-6)


def test_of_a_rotation_by_45_degrees_is_one_and_of_a_constant_zero():
    rotation = torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    assert jacobian_asymmetry(Linear(rotation), points(3, 2), 1.0) == pytest.approx(1)
    assert jacobian_asymmetry(Linear(torch.zeros(2, 2)), points(3, 2), 1.0) == 0


@pytest.mark.parametrize(
    "energy",
    [GaussianMixture(points(4, 1, 3, 3), 0.3), EmpiricalData(points(20, 1, 3, 3))],
    ids=["mixture", "data"],
)
def test_closed_form_energies_are_symmetric(energy):
    assert jacobian_asymmetry(energy, points(4, 1, 3, 3), 0.7) < 1e-6


def learned(parametrization):
    torch.manual_seed(0)
    model = build_denoiser(MLP((1, 3, 3), width=32, depth=2, num_classes=3), 0.5, parametrization)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.mark.parametrize("grad", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_tells_a_learned_energy_from_its_unconstrained_twin(grad):
    energy, twin = learned("inner_product"), learned("unconstrained")
    with grad():
        x, sigma, label = points(2, 1, 3, 3), torch.tensor([0.2, 1.0]), torch.tensor([1, -1])
        assert jacobian_asymmetry(energy, x, sigma, label) < 1e-5
        assert jacobian_asymmetry(twin, x, sigma, label) > 1e-2
