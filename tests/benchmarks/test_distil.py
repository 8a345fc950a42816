"""What the comparison of distillation rests on: equal operations, and the weights of a baseline."""

import pytest
import torch

from benchmarks.distil import WITHOUT_TEACHER, with_weights_of
from energydiff.data import Normalization
from energydiff.denoisers import build_denoiser, network_of
from energydiff.diffusion import NoisyBatch, Teacher, denoising_loss
from energydiff.energies import NoiseRange
from energydiff.evaluation.cost import operations
from energydiff.potentials import UNet
from energydiff.saving import SavedModel


@pytest.fixture
def baseline() -> SavedModel:
    network = UNet((1, 8, 8), 16, (1, 2), 1, attention_resolutions=(4,))
    denoiser = build_denoiser(network, 0.8, "unconstrained", noise=NoiseRange(0.02, 10.0))
    return SavedModel(denoiser, Normalization(0, 16))


def test_a_teacher_costs_a_sixth_of_the_step_without_it(baseline: SavedModel) -> None:
    energy = build_denoiser(UNet(**baseline.denoiser.backbone.config), 0.8)
    batch = NoisyBatch(torch.randn(2, 1, 8, 8), torch.ones(2), torch.randn(2, 1, 8, 8), 0.8)
    teacher = Teacher(baseline.denoiser)

    def step(batch: NoisyBatch) -> None:
        denoising_loss(energy, batch).sum().backward()

    ratio = operations(lambda: step(teacher.inform(batch))) / operations(lambda: step(batch))
    assert ratio == pytest.approx(WITHOUT_TEACHER, rel=0.02)


def test_an_energy_takes_the_weights_of_a_baseline(baseline: SavedModel) -> None:
    energy = with_weights_of(baseline).denoiser
    assert energy.energy is not None and energy.noise == baseline.denoiser.noise
    mine, theirs = network_of(energy), network_of(baseline.denoiser)
    assert mine is not None and theirs is not None
    torch.testing.assert_close(mine.state_dict(), theirs.state_dict(), rtol=0, atol=0)
