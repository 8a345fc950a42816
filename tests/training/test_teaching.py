"""Which teacher a run takes, what of its weights it begins with, where the teacher has no part."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from energydiff.data import Normalization
from energydiff.denoisers import build_denoiser, network_of
from energydiff.diffusion import NoisyBatch, Teacher
from energydiff.energies import EmpiricalData, NoiseRange
from energydiff.errors import UserError
from energydiff.potentials import MLP, Backbone
from energydiff.saving import SavedModel
from energydiff.training import EMA, DiffusionData, DiffusionModule, NonFiniteGuard
from energydiff.training.teaching import learn_from, start_where_fitting

SHAPE = (1, 8, 8)


def taught(network: Backbone | None = None, levels: NoiseRange | None = None) -> SavedModel:
    """An unconstrained baseline whose network says something."""
    network = network or MLP(SHAPE, width=8, depth=1)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    levels = levels or NoiseRange(0.002, 80.0)
    denoiser = build_denoiser(network, 0.8, "unconstrained", noise=levels)
    return SavedModel(denoiser, Normalization(0, 16))


REFUSED: dict[str, tuple[SavedModel, str]] = {
    "shape": (taught(MLP((1, 4, 4), 8, 1)), r"samples 1 × 4 × 4, and the data are 1 × 8 × 8"),
    "values": (
        replace(taught(), normalization=Normalization(0, 255)),
        r"'high': 255.*data\.source\.value_range",
    ),
    "noise": (taught(levels=NoiseRange(0.1, 80.0)), r"noise 0\.1 to 80, .*from 0\.02 to 80"),
    "noise-blind": (
        SavedModel(build_denoiser(MLP(SHAPE, 8, 1), 0.8, "dot"), Normalization(0, 16)),
        "the teacher is noise-blind",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_teacher_of_something_else_is_refused(case: str, module: DiffusionModule) -> None:
    teacher, sentence = REFUSED[case]
    with pytest.raises(UserError, match=sentence):
        learn_from(module, teacher, "runs/t")
    assert module.teacher is None


def test_classes_must_be_the_same_where_labels_are_learned() -> None:
    def module(classes: tuple[str, ...]) -> DiffusionModule:
        network = MLP(SHAPE, 8, 1, num_classes=len(classes))
        return DiffusionModule(network, 0.8, Normalization(0, 16), classes=classes)

    labelled = replace(taught(MLP(SHAPE, 8, 1, num_classes=2)), classes=("a", "b"))
    learn_from(module(("a", "b")), labelled, "t")
    learn_from(module(()), labelled, "t")  # asked without a label
    for classes, teacher in ((("b", "a"), labelled), (("a", "b"), taught())):
        with pytest.raises(UserError, match=r"classes \[.*leave data\.source\.labels out"):
            learn_from(module(classes), teacher, "t")


def test_a_closed_form_teaches_every_noise_and_gives_no_weights(module: DiffusionModule) -> None:
    teacher = SavedModel(EmpiricalData(torch.zeros(2, *SHAPE)), Normalization(0, 16))
    learn_from(module, teacher, "t")
    before = copy.deepcopy(module.state_dict())
    assert start_where_fitting(module, teacher).startswith("0 of ")
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_tensors_of_the_same_name_and_shape_are_the_teachers(module: DiffusionModule) -> None:
    for width, depth, whole in ((8, 1, True), (8, 2, True), (12, 1, False)):
        teacher = taught(MLP(SHAPE, width, depth))
        said = start_where_fitting(module, teacher)
        mine, theirs = (network_of(d).state_dict() for d in (module.denoiser, teacher.denoiser))
        fitting = [n for n in mine if n in theirs and mine[n].shape == theirs[n].shape]
        assert all(torch.equal(mine[name], theirs[name]) for name in fitting)
        assert said == f"{len(fitting)} of {len(mine)} tensors start as the teacher's"
        assert len(fitting) == (len(mine) if whole else 0)


def test_training_follows_the_teacher_and_a_held_out_loss_the_data(
    module: DiffusionModule, data: DiffusionData, make_trainer: Callable[..., pl.Trainer]
) -> None:
    """And no checkpoint, copy or average has the teacher."""
    trainer = make_trainer(max_steps=2, callbacks=[EMA(), NonFiniteGuard()])
    names = set(module.state_dict())
    learn_from(module, taught(), "runs/t")
    assert module.config["teacher"]["path"] == "runs/t"
    trainer.fit(module, data)
    assert set(module.state_dict()) == names
    ema = next(c for c in trainer.callbacks if isinstance(c, EMA))  # type: ignore[attr-defined]
    assert ema.averaged(module).teacher is module.teacher

    raw = torch.stack([data.train_source[i][0] for i in range(8)])
    noise = torch.randn(8, *SHAPE)
    batch: dict[str, Any] = {"raw": raw, "noise": noise, "uniform": torch.full((8, 2), 0.5)}
    half = module.total_images // 2 // module.batch_size
    losses = {}
    for mode, module.steps in ((True, half - 1), (False, 0)):
        for teacher in (module.teacher, None):
            module.train(mode).teacher, kept = teacher, module.teacher
            losses[mode, teacher is None] = module.loss_parts(batch)["denoising"].detach()
            module.teacher = kept
    assert torch.equal(losses[False, True], losses[False, False])
    assert not torch.allclose(losses[True, True], losses[True, False])


def test_the_teacher_is_asked_in_its_share_of_the_images_alone(
    data: DiffusionData, make_trainer: Callable[..., pl.Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of six steps, the last of which exceeds the images asked for, and as a run goes on."""
    asked: list[int] = []
    inform = Teacher.inform

    def informing(teacher: Teacher, batch: NoisyBatch) -> NoisyBatch:
        asked.append(trainer.global_step)
        return inform(teacher, batch)

    monkeypatch.setattr(Teacher, "inform", informing)
    for share, expected in ((0.0, []), (0.5, [0, 1, 2]), (1.0, [0, 1, 2, 3, 4, 5])):
        module = DiffusionModule(
            MLP(SHAPE, 8, 1),
            data.sigma_data,
            data.normalization,
            batch_size=data.batch_size,
            total_images=6 * data.batch_size - 1,
            teacher_share=share,
        )
        learn_from(module, taught(), "runs/t")
        trainer = make_trainer(max_steps=6)
        trainer.fit(module, data)
        assert sorted(set(asked)) == expected
        asked.clear()
