"""A teacher's posterior mean in the place of the data: the same optimum, and no noise about it."""

import copy

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from energydiff.denoisers import build_denoiser
from energydiff.diffusion import DualScoreMatching, NoisyBatch, Teacher, denoising_loss
from energydiff.energies import Denoiser, GaussianMixture
from energydiff.energies.base import Sigma
from energydiff.errors import UserError
from energydiff.potentials import MLP

DIM, STD = 4, 0.5
CENTRES = torch.tensor([[1.0, 0, 0, 0], [-1.0, 0.5, 0, 0]], dtype=torch.float64)


def noisy(count: int = 64, dtype: torch.dtype = torch.float64) -> NoisyBatch:
    """Of the mixture itself."""
    x0 = CENTRES[torch.arange(count) % 2] + STD * torch.randn(count, DIM, dtype=torch.float64)
    sigma = torch.logspace(-1, 0.7, count, dtype=torch.float64)
    noise = torch.randn_like(x0)
    return NoisyBatch(*(t.to(dtype) for t in (x0, sigma, noise)), sigma_data=0.9)


def exact() -> GaussianMixture:
    return GaussianMixture(CENTRES, STD)


def test_an_exact_energy_learns_nothing_from_its_own_denoiser() -> None:
    """‖D − E[x0 | x]‖² is 0, where the denoising loss keeps the posterior's variance."""
    batch = noisy()
    assert denoising_loss(exact(), Teacher(exact()).inform(batch)).max() < 1e-24
    assert denoising_loss(exact(), batch).mean() > 0.1


def test_the_gradient_is_that_of_denoising_with_less_noise() -> None:
    """Of Gaussian data and D = a x at one σ, ∂/∂a ‖D − target‖² per image: the same mean, while the
    variance loses 4x² times that of the posterior."""
    teacher = GaussianMixture(torch.zeros(1, DIM, dtype=torch.float64), STD)
    x0, noise = torch.randn(2, 40_000, DIM, dtype=torch.float64)
    batch = NoisyBatch(STD * x0, torch.full((len(x0),), 0.7, dtype=torch.float64), noise, STD)

    def slopes(batch: NoisyBatch) -> Tensor:
        return 2 * ((0.2 * batch.x - batch.target) * batch.x).mean(1)

    of_data, of_teacher = slopes(batch), slopes(Teacher(teacher).inform(batch))
    difference = of_data - of_teacher
    assert abs(difference.mean()) < 5 * difference.std() / len(x0) ** 0.5
    squared = (STD**2 + 0.7**2) * DIM  # E‖x‖²
    posterior = STD**2 * 0.7**2 / (STD**2 + 0.7**2)
    assert difference.var().item() == pytest.approx(4 * squared * posterior / DIM**2, rel=0.05)


def test_an_energy_comes_nearer_to_its_teacher_than_data_would_tell() -> None:
    teacher = Teacher(exact().float())
    energy = build_denoiser(MLP((DIM,), width=32, depth=2), 0.9)
    optimizer = torch.optim.Adam(energy.parameters(), 5e-3)
    for _ in range(300):
        batch = teacher.inform(noisy(dtype=torch.float32))
        optimizer.zero_grad()
        denoising_loss(energy, batch).mean().backward()
        optimizer.step()
    energy.eval()
    batch = noisy(2_000, torch.float32)
    floor = denoising_loss(exact().float(), batch).mean()
    assert denoising_loss(energy, teacher.inform(batch)).mean() < 0.03 * floor


def test_the_time_score_keeps_the_target_of_the_data() -> None:
    batch, shifted = noisy(), GaussianMixture(CENTRES + 1, STD)
    parts = [DualScoreMatching()(exact(), b) for b in (batch, Teacher(shifted).inform(batch))]
    assert torch.equal(parts[0]["time_score"], parts[1]["time_score"])
    assert not torch.allclose(parts[0]["denoising"], parts[1]["denoising"])


class Asked(Denoiser):
    """Remembers what labels it was asked with."""

    shape = (DIM,)

    def __init__(self, num_classes: int = 0) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.weight = torch.nn.Parameter(torch.ones(()))

    def denoise(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
        self.label = label
        return self.weight * x


def test_labels_go_to_a_teacher_that_knows_classes() -> None:
    labels = torch.arange(8) % 3 - 1
    batch = NoisyBatch(torch.zeros(8, DIM), torch.ones(8), torch.randn(8, DIM), 1.0, labels)
    for classes, expected in ((2, labels), (0, None)):
        teacher = Teacher(asked := Asked(classes))
        informed = teacher.inform(batch)
        assert asked.label is expected
        assert informed.label is labels and not informed.target.requires_grad
        assert_close(informed.target, batch.x)


def test_copies_share_it_and_no_state_has_it() -> None:
    module = torch.nn.Linear(2, 2)
    module.teacher = teacher = Teacher(Asked())  # type: ignore[assignment]
    assert copy.deepcopy(module).teacher is teacher
    assert module.state_dict().keys() == {"weight", "bias"}
    assert not any(p.requires_grad for p in teacher.denoiser.parameters())


def test_a_teacher_without_a_posterior_mean_is_refused() -> None:
    with pytest.raises(UserError, match="noise-blind and has no posterior mean"):
        Teacher(build_denoiser(MLP((DIM,), 8, 1), 1.0, "coercive"))
