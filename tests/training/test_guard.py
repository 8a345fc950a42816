"""A value that is not finite stops training before it reaches the weights, and is named."""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

from energydiff.training import DiffusionData, DiffusionModule
from energydiff.training.guard import NonFiniteError, NonFiniteGuard

STEP, ROW = 2, 3
Plant = Callable[[DiffusionModule, dict[str, Tensor]], None]


class Planted(pl.Callback):
    """Plants a fault at the start of one batch and notes the weights and images it met."""

    def __init__(self, plant: Plant, batch_number: int = STEP) -> None:
        self.plant, self.batch_number = plant, batch_number

    def on_train_batch_start(self, trainer, module, batch: dict[str, Tensor], number: int) -> None:
        if number == self.batch_number:
            self.plant(module, batch)
            self.indices = batch["index"].tolist()
            self.weights = {n: p.detach().clone() for n, p in module.named_parameters()}


def poison_image(value: float) -> Plant:
    def plant(module: DiffusionModule, batch: dict[str, Tensor]) -> None:
        batch["raw"] = batch["raw"].float()
        batch["raw"][ROW, 0, 0, 0] = value

    return plant


def poison_weight(module: DiffusionModule, batch: dict[str, Tensor]) -> None:
    with torch.no_grad():
        module.denoiser.potential.backbone.input.weight[0, 0] = torch.inf


def poison_gradient(module: DiffusionModule, batch: dict[str, Tensor]) -> None:
    """The loss itself stays finite."""
    module.denoiser.potential.backbone.input.weight.register_hook(lambda grad: grad * torch.nan)


@pytest.fixture
def fit(make_trainer, module: DiffusionModule, data: DiffusionData):
    def run(planted: Planted, **options: Any) -> str:
        trainer = make_trainer(max_steps=6, callbacks=[planted, NonFiniteGuard()], **options)
        with pytest.raises(NonFiniteError) as error:
            trainer.fit(module, data)
        return str(error.value)

    return run


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_bad_image_is_named(value: float, fit) -> None:
    planted = Planted(poison_image(value))
    message = fit(planted)
    assert f"before step {STEP}:" in message
    assert f"rank 0: the loss of sample indices [{planted.indices[ROW]}]" in message


def test_a_bad_weight_names_all_images_of_the_batch(fit) -> None:
    planted = Planted(poison_weight)
    message = fit(planted)
    assert f"rank 0: the loss of sample indices {planted.indices}" in message


@pytest.mark.parametrize("plant", [poison_image(torch.nan), poison_weight, poison_gradient])
def test_the_weights_are_those_of_the_step_before(plant, fit, module: DiffusionModule) -> None:
    planted = Planted(plant)
    fit(planted)
    assert all(torch.equal(p, planted.weights[n]) for n, p in module.named_parameters())


def test_a_bad_gradient_behind_a_good_loss_is_found(fit) -> None:
    planted = Planted(poison_gradient)
    message = fit(planted)
    assert f"before step {STEP}:" in message
    assert f"rank 0: a gradient norm of nan from sample indices {planted.indices}" in message


@pytest.mark.parametrize("batch_number", [2, 3])
def test_the_image_is_named_whichever_accumulated_batch_it_is_in(batch_number: int, fit) -> None:
    planted = Planted(poison_image(torch.nan), batch_number)
    message = fit(planted, accumulate_grad_batches=2)
    assert "before step 1:" in message
    assert f"the loss of sample indices [{planted.indices[ROW]}]" in message


def test_a_healthy_run_is_left_alone(make_trainer, module, data) -> None:
    trainer = make_trainer(max_steps=3, callbacks=[NonFiniteGuard()])
    trainer.fit(module, data)
    assert trainer.global_step == 3
