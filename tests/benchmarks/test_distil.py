"""What the comparison of distillation rests on: equal operations."""

import pytest
import torch

from benchmarks.distil import TEACHER
from energydiff.denoisers import build_denoiser
from energydiff.diffusion import DenoisingScoreMatching, NoisyBatch, Teacher
from energydiff.evaluation.cost import operations
from energydiff.potentials import UNet


def test_a_teachers_answer_is_a_sixth_of_a_step_without_it() -> None:
    network = UNet((1, 8, 8), 16, (1, 2), 1, attention_resolutions=(4,))
    teacher = Teacher(build_denoiser(network, 0.8, "unconstrained"))
    energy = build_denoiser(UNet(**network.config), 0.8)
    batch = NoisyBatch(torch.randn(2, 1, 8, 8), torch.ones(2), torch.randn(2, 1, 8, 8), 0.8)

    def step(batch: NoisyBatch) -> None:
        DenoisingScoreMatching()(energy, batch)["denoising"].sum().backward()

    taught, alone = operations(lambda: step(teacher.inform(batch))), operations(lambda: step(batch))
    assert taught / alone == pytest.approx(1 + TEACHER, rel=0.02)
