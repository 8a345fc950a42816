"""Samples, labels and noise that fit no model are refused: a number would mean nothing."""

import math

import pytest
import torch

from energydiff import NoEnergyError, UserError
from energydiff.denoisers import build_denoiser
from energydiff.energies import Denoiser, EmpiricalData, Energy, GaussianMixture
from energydiff.energies.base import sigma_vector
from energydiff.potentials import MLP
from energydiff.sampling import Euler

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
    for name in (
        "forward",
        "score",
        "free_energy",
        "value_and_grad",
        "value_and_grads",
        "noise_derivative",
    ):
        with pytest.raises(NoEnergyError, match="no energy"):
            getattr(baseline, name)(torch.zeros(1, 2), 1.0)
    with pytest.raises(NoEnergyError, match="no energy"):
        baseline(torch.zeros(1, 2), 1.0)


LABELLED = {
    name: build_denoiser(MLP((2,), width=8, depth=1, num_classes=3), 1.0, name)
    for name in ("inner_product", "unconstrained")
}
every_labelled = pytest.mark.parametrize("model", LABELLED.values(), ids=LABELLED)


@every_labelled
@pytest.mark.parametrize(
    "label",
    [[0, 1, 2, 3], [0, 1, 2, -2], [0, 1, 2], [[0], [1], [2], [0]], [0.0, 1.0, 2.0, 0.0]],
    ids=["too large", "too small", "too few", "another shape", "no integers"],
)
def test_labels_that_are_none_are_refused(model: Denoiser, label: list) -> None:
    """By the model and by a sampler, in the same words."""
    sampler = Euler([2.0, 1.0])
    for ask in (model.denoise, lambda x, _, label: sampler(model, x, label=label)):
        with pytest.raises(UserError, match=r"label must be 4 integers from -1.* to 2, got"):
            ask(torch.zeros(4, 2), 1.0, torch.tensor(label))


@every_labelled
def test_labels_and_unknown_labels_are_taken(model: Denoiser) -> None:
    label = torch.tensor([0, 2, -1])
    assert model.denoise(torch.zeros(3, 2), 1.0, label).isfinite().all()
    assert Euler([2.0, 1.0])(model, torch.zeros(3, 2), label=label).samples.isfinite().all()


@pytest.mark.parametrize("energy", ENERGIES, ids=NAMES)
def test_a_label_for_an_energy_without_classes_is_refused(energy: Energy) -> None:
    label = torch.zeros(3, dtype=torch.long)
    for question in (energy, energy.value_and_grad, energy.denoise):
        with pytest.raises(UserError, match="num_classes = 0"):
            question(torch.zeros(3, 2), 1.0, label)


@pytest.mark.parametrize("energy", ENERGIES, ids=NAMES)
@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan])
def test_noise_that_is_not_positive_is_refused(energy: Energy, wrong: float) -> None:
    """As a number, as one of several in a tensor, and as a tensor without axes."""
    x = torch.zeros(3, 2)
    for sigma in (wrong, torch.tensor([1.0, wrong, 2.0]), torch.tensor(wrong)):
        for question in (energy, energy.value_and_grad, energy.denoise, energy.free_energy):
            with pytest.raises(UserError, match=f"sigma must be positive, got {wrong}"):
                question(x, sigma)


def test_noise_on_an_accelerator_is_not_read() -> None:
    """It would wait for the device at every step; a tensor without values stands for one."""
    assert sigma_vector(torch.zeros(3, device="meta"), torch.zeros(3, 2, device="meta")).is_meta
