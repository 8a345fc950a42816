"""Samples of another shape are refused: a number for them would be the energy of nothing."""

import pytest
import torch

from energydiff import NoEnergyError, UserError
from energydiff.denoisers import build_denoiser
from energydiff.energies import EmpiricalData, Energy, GaussianMixture
from energydiff.potentials import MLP

ENERGIES = [
    GaussianMixture(torch.zeros(3, 2), 1.0),
    EmpiricalData(torch.zeros(3, 2)),
    build_denoiser(MLP((2,), width=8, depth=1), 1.0),
]
NAMES = [type(energy).__name__ for energy in ENERGIES]


@pytest.mark.parametrize("energy", ENERGIES, ids=NAMES)
@pytest.mark.parametrize("shape", [(5, 1), (5, 3), (5, 2, 1)])
def test_another_shape_is_refused(energy: Energy, shape: tuple[int, ...]) -> None:
    """E, ∇E and V of samples that would only broadcast."""
    x = torch.zeros(shape)
    for question in (energy, energy.value_and_grad, energy.free_energy, energy.denoise):
        with pytest.raises(UserError, match=r"\(B, \*\(2,\)\)"):
            question(x, 1.0)


@pytest.mark.parametrize("energy", ENERGIES, ids=NAMES)
def test_integers_are_refused(energy: Energy) -> None:
    """They have no gradient."""
    with pytest.raises(UserError, match="floating point"):
        energy(torch.zeros(5, 2, dtype=torch.long), 1.0)


def test_a_baseline_says_that_it_has_no_energy() -> None:
    """Asked in any of the ways an energy can be asked."""
    baseline = build_denoiser(MLP((2,), width=8, depth=1), 1.0, "unconstrained")
    for name in ("forward", "score", "free_energy", "value_and_grad", "noise_derivative"):
        with pytest.raises(NoEnergyError, match="no energy"):
            getattr(baseline, name)(torch.zeros(1, 2), 1.0)
    with pytest.raises(NoEnergyError, match="no energy"):
        baseline(torch.zeros(1, 2), 1.0)
