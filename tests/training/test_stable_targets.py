"""``model.stable_targets``: the posterior mean over the training data in the place of a draw."""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from energydiff.data import Digits, Subset
from energydiff.denoisers import build_denoiser
from energydiff.diffusion import MaximumLikelihood, NoisyBatch, Teacher
from energydiff.energies import EmpiricalData
from energydiff.errors import UserError
from energydiff.potentials import MLP, NaturalConvex
from energydiff.saving import SavedModel
from energydiff.training import DiffusionData, DiffusionModule, stable_targets
from energydiff.training.teaching import learn_from

MakeTrainer = Callable[..., pl.Trainer]


def learner(data: DiffusionData, **options: Any) -> DiffusionModule:
    return DiffusionModule(
        MLP(data.shape, width=8, depth=1),
        data.sigma_data,
        data.normalization,
        batch_size=data.batch_size,
        total_images=4 * data.batch_size,
        stable_targets=True,
        **options,
    )


def informed_in(
    monkeypatch: pytest.MonkeyPatch, trainer: pl.Trainer
) -> list[tuple[int, Teacher, NoisyBatch]]:
    """Step, teacher and informed batch of every answer."""
    answers: list[tuple[int, Teacher, NoisyBatch]] = []
    inform = Teacher.inform

    def informing(teacher: Teacher, batch: NoisyBatch) -> NoisyBatch:
        answers.append((trainer.global_step, teacher, answer := inform(teacher, batch)))
        return answer

    monkeypatch.setattr(Teacher, "inform", informing)
    return answers


@pytest.mark.parametrize("flip", [False, True])
def test_the_target_is_the_mean_over_all_training_samples(
    flip: bool, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Bayes' rule in float64, of a subset's samples alone, and of their mirror images."""
    data = DiffusionData(Digits(), Subset(40), flip=flip, batch_size=8)
    trainer = make_trainer(max_steps=2)
    answers = informed_in(monkeypatch, trainer)
    trainer.fit(learner(data), data)
    assert len(answers) == 2
    points = data.train_source.clean().double()
    assert len(points) == 40
    if flip:
        points = torch.cat([points, points.flip(-1)])
    for _, _, batch in answers:
        for x, sigma, target in zip(
            batch.x.double(), batch.sigma.double(), batch.target, strict=True
        ):
            weights = torch.softmax(-(x - points).square().sum((1, 2, 3)) / (2 * sigma**2), 0)
            mean = torch.einsum("k,k...->...", weights, points)
            assert_close(target.double(), mean, rtol=0, atol=1e-5)


def test_it_is_the_draw_in_the_mean_with_less_noise() -> None:
    """What any network is regressed on: E[f(x) x0] = E[f(x) E[x0 | x]], for f a few sinusoids."""
    data = DiffusionData(Digits(), Subset(8))
    points, count = data.train_source.clean(), 40_000
    x0, sigma = points[torch.arange(count) % 8], torch.full((count,), 3.0)
    batch = NoisyBatch(x0, sigma, torch.randn_like(x0), data.sigma_data)
    informed = stable_targets.exact_mean(data).inform(batch)
    f = (batch.x.flatten(1) @ torch.randn(64, 5) / 30).sin()
    difference = (informed.target - x0).flatten(1)
    products = torch.einsum("nf,nd->nfd", f, difference)
    error = products.std(0) / count**0.5
    assert (products.mean(0).abs() < 5.5 * error + 1e-6).all()
    spread = difference.var(0).sum()  # E Var[x0 | x]
    assert 0.3 < spread / points.flatten(1).var(0).sum() < 0.9


def test_a_sample_that_stands_in_for_another_counts_twice() -> None:
    data = DiffusionData(Digits(), Subset(4))
    data.train_source.places = np.array([0, 1, 1, 2, 3])
    known = stable_targets.exact_mean(data).denoiser
    assert isinstance(known, EmpiricalData)
    assert torch.equal(known.data, data.train_source.clean()[[0, 1, 1, 2, 3]])


def test_it_ends_where_it_is_turned_off(data: DiffusionData, make_trainer: MakeTrainer) -> None:
    module = learner(data)
    make_trainer(max_steps=1).fit(module, data)
    assert module.data_mean is not None
    module.stable_targets = False
    make_trainer(max_steps=1).fit(module, data)
    assert module.data_mean is None


def test_a_teacher_has_its_share_first_and_no_held_out_loss_has_either(
    data: DiffusionData, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, trainer = learner(data), make_trainer(max_steps=4, limit_val_batches=1)
    teacher = build_denoiser(MLP(data.shape, 8, 1), 0.8, "unconstrained")
    learn_from(module, SavedModel(teacher, data.normalization), "runs/t")
    answers = informed_in(monkeypatch, trainer)
    trainer.fit(module, data)
    assert [step for step, *_ in answers] == [0, 1, 2, 3]
    assert [told for _, told, _ in answers] == [module.teacher] * 2 + [module.data_mean] * 2
    assert module.state_dict().keys() == learner(data).state_dict().keys()
    answers.clear()
    trainer.validate(module, data, verbose=False)
    assert not answers


def natural(data: DiffusionData) -> DiffusionModule:
    return DiffusionModule(
        NaturalConvex(data.shape),
        data.sigma_data,
        data.normalization,
        "natural",
        MaximumLikelihood(),
        batch_size=data.batch_size,
        stable_targets=True,
    )


def test_what_has_no_such_mean_is_refused(
    data: DiffusionData, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(data: DiffusionData, module: DiffusionModule, *given: Any) -> None:
        make_trainer(max_steps=1).fit(module, *(given or (data,)))

    with pytest.raises(UserError, match="no use for the mean of a teacher or of model"):
        fit(data, natural(data))
    with pytest.raises(UserError, match=r"of whatever class: leave data\.source\.labels out"):
        fit(labelled := DiffusionData(Digits(labels=True), batch_size=8), learner(labelled))
    loader = torch.utils.data.DataLoader(Tensors())
    with pytest.raises(UserError, match="takes all training samples from a DiffusionData"):
        fit(data, learner(data), loader)
    monkeypatch.setattr(stable_targets, "STACK_BYTES", 400)
    with pytest.raises(
        UserError, match=r"samples, which here are .* MiB, and at most .* MiB.*data\.subset"
    ):
        fit(data, learner(data))


class Tensors(torch.utils.data.Dataset[Tensor]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Tensor:
        return torch.zeros(1)
