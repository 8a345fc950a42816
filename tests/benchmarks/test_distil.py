"""What the comparison of distillation rests on: equal operations, and the weights of a baseline."""

import pytest
import torch
from torch import Tensor

from benchmarks.distil import (
    MIDDLE,
    UNET_WITHOUT_TEACHER,
    WITHOUT_TEACHER,
    from_teacher,
    with_weights_of,
)
from energydiff.data import Digits, Normalization
from energydiff.denoisers import build_denoiser, network_of
from energydiff.diffusion import (
    DenoisingScoreMatching,
    DualScoreMatching,
    NoisyBatch,
    Objective,
    Teacher,
)
from energydiff.energies import Denoiser, NoiseRange
from energydiff.energies.base import Sigma
from energydiff.evaluation.cost import operations
from energydiff.potentials import EnergyUNet, UNet
from energydiff.sampling import karras_sigmas
from energydiff.saving import SavedModel


@pytest.fixture
def baseline() -> SavedModel:
    network = UNet((1, 8, 8), 16, (1, 2), 1, attention_resolutions=(4,))
    denoiser = build_denoiser(network, 0.8, "unconstrained", noise=NoiseRange(0.02, 10.0))
    return SavedModel(denoiser, Normalization(0, 16))


def test_a_teacher_costs_a_sixth_of_a_step_and_more_of_that_of_half_a_network(
    baseline: SavedModel,
) -> None:
    energy = build_denoiser(UNet(**baseline.denoiser.backbone.config), 0.8)
    half = EnergyUNet((1, 8, 8), 16, (1, 2), 2, attention_resolutions=(4,))
    unet = build_denoiser(half, 0.8, "scalar")
    batch = NoisyBatch(torch.randn(2, 1, 8, 8), torch.ones(2), torch.randn(2, 1, 8, 8), 0.8)
    teacher = Teacher(baseline.denoiser)

    def ratio(objective: Objective, learner: Denoiser) -> float:
        def step(batch: NoisyBatch) -> None:
            torch.stack([p.sum() for p in objective(learner, batch).values()]).sum().backward()

        return operations(lambda: step(teacher.inform(batch))) / operations(lambda: step(batch))

    assert ratio(DenoisingScoreMatching(), energy) == pytest.approx(WITHOUT_TEACHER, rel=0.02)
    assert ratio(DualScoreMatching(), unet) == pytest.approx(UNET_WITHOUT_TEACHER, rel=0.02)


def test_an_energy_takes_the_weights_of_a_baseline(baseline: SavedModel) -> None:
    energy = with_weights_of(baseline).denoiser
    assert energy.energy is not None and energy.noise == baseline.denoiser.noise
    mine, theirs = network_of(energy), network_of(baseline.denoiser)
    assert mine is not None and theirs is not None
    torch.testing.assert_close(mine.state_dict(), theirs.state_dict(), rtol=0, atol=0)


def test_an_energy_is_as_far_from_its_teacher_as_it_was_moved(baseline: SavedModel) -> None:
    """A shift of D by δ is an error of w δ², w = (σ² + σ_d²)/(σσ_d)², wherever it is asked."""
    held_out = Digits().open().held_out

    class Shifted(Denoiser):
        shape, noise = baseline.denoiser.shape, baseline.denoiser.noise

        def denoise(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
            return baseline.denoiser.denoise(x, sigma, label) + 0.1

    sigma = karras_sigmas(18, *baseline.denoiser.require_noise())[MIDDLE].item()
    expected = (sigma**2 + 0.8**2) / (sigma * 0.8) ** 2 * 0.01
    errors = from_teacher(Shifted(), baseline.denoiser, held_out, 0.8)
    assert errors == pytest.approx((expected, expected), rel=1e-3)
