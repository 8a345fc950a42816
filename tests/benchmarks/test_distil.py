"""What the comparison of distillation rests on: what is asked for beside a step costs so much."""

import pytest
import torch

from energydiff.denoisers import build_denoiser
from energydiff.diffusion import DualScoreMatching, NoisyBatch, Teacher
from energydiff.energies import EmpiricalData
from energydiff.evaluation.cost import operations
from energydiff.potentials import UNet

SHAPE, SAMPLES = (1, 8, 8), 1_499


def test_a_teachers_answer_is_a_sixth_of_a_step_and_the_exact_mean_of_digits_a_hundredth() -> None:
    network = UNet(SHAPE, 16, (1, 2), 1, attention_resolutions=(4,))
    baseline = Teacher(build_denoiser(network, 0.8, "unconstrained"))
    data_mean = Teacher(EmpiricalData(torch.randn(SAMPLES, *SHAPE)))
    energy = build_denoiser(UNet(**network.config), 0.8)
    batch = NoisyBatch(torch.randn(2, *SHAPE), torch.ones(2), torch.randn(2, *SHAPE), 0.8)

    def step(batch: NoisyBatch) -> None:
        sum(part.sum() for part in DualScoreMatching()(energy, batch).values()).backward()  # type: ignore[union-attr]

    alone = operations(lambda: step(batch))
    for told, more in ((baseline, 1 / 6), (data_mean, 0.01)):
        taught = operations(lambda told=told: step(told.inform(batch)))  # type: ignore[misc]
        assert taught / alone == pytest.approx(1 + more, abs=0.003)
