"""A value that is not finite stops training before it reaches the weights, and is named."""

import copy
import math
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

from energydiff.errors import UserError
from energydiff.training import DiffusionData, DiffusionModule, guard, nonfinite
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
            self.indices = [trainer.datamodule.stream.index(n) for n in batch["count"].tolist()]
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


def test_the_step_is_kept_whole_and_can_be_taken_again(
    fit, module: DiffusionModule, make_trainer, tmp_path
) -> None:
    """Both accumulated batches, each image's σ, and the weights, whose gradient it is again."""
    planted = Planted(poison_gradient, 2 * STEP)
    fit(planted, accumulate_grad_batches=2)
    report, (batches,) = nonfinite.read(tmp_path / "nonfinite" / f"{STEP * 8:09d}")
    (share,) = report["ranks"]
    assert share["counts"] == list(range(STEP * 8, (STEP + 1) * 8))
    assert [len(batch["count"]) for batch in batches] == [4, 4]
    levels = torch.cat([module.noise.quantile(batch["uniform"][:, 0]) for batch in batches])
    assert share["levels"] == pytest.approx(levels.tolist())
    saved = torch.load(tmp_path / f"nonfinite/{STEP * 8:09d}/weights.ckpt", weights_only=True)
    assert saved["global_step"] == STEP
    assert all(torch.equal(saved["state_dict"][n], w) for n, w in planted.weights.items())

    module.load_state_dict(saved["state_dict"])
    again = nonfinite.replay(make_trainer(), module, batches)
    assert again.losses.tolist() == pytest.approx(share["losses"], rel=1e-6)
    assert again.parameters == ["denoiser.potential.backbone.input.weight"]
    assert again.first is None and not math.isfinite(again.norm)


def test_a_full_disk_does_not_hide_what_happened(fit, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise UserError("no room")

    monkeypatch.setattr(nonfinite, "write_checkpoint", full)
    message = fit(Planted(poison_image(torch.nan)))
    assert f"before step {STEP}:" in message and "replay" not in message


@pytest.mark.parametrize("batch_number", [2, 3])
def test_the_image_is_named_whichever_accumulated_batch_it_is_in(batch_number: int, fit) -> None:
    planted = Planted(poison_image(torch.nan), batch_number)
    message = fit(planted, accumulate_grad_batches=2)
    assert "before step 1:" in message
    assert f"the loss of sample indices [{planted.indices[ROW]}]" in message


class Forgotten(pl.Callback):
    """What came back from the first batch is lost for some parameters."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for name, parameter in pl_module.named_parameters():
            if not self.names or name.endswith(self.names):
                parameter.grad = None


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("input.weight",), "1 of 13 parameters got no gradient .*: denoiser.*input.weight. Leave"),
        ((), "13 of 13 parameters got no gradient .*, …. Leave"),
    ],
)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_parameter_without_a_gradient_is_named_before_the_first_step(
    names, told: str, accumulate: int, make_trainer, module: DiffusionModule, data: DiffusionData
) -> None:
    before = copy.deepcopy(module.state_dict())
    trainer = make_trainer(
        max_steps=6,
        callbacks=[Forgotten(*names), NonFiniteGuard()],
        accumulate_grad_batches=accumulate,
    )
    with pytest.raises(UserError, match=told):
        trainer.fit(module, data)
    assert trainer.global_step == 0
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())


def test_a_frozen_parameter_needs_no_gradient(make_trainer, module, data) -> None:
    module.denoiser.potential.backbone.input.requires_grad_(False)
    trainer = make_trainer(max_steps=2, callbacks=[NonFiniteGuard()])
    trainer.fit(module, data)
    assert trainer.global_step == 2


def test_a_healthy_run_is_left_alone(make_trainer, module, data) -> None:
    trainer = make_trainer(max_steps=3, callbacks=[NonFiniteGuard()])
    trainer.fit(module, data)
    assert trainer.global_step == 3


class Late(NonFiniteGuard):
    """As on a device: the verdict of a step is there when the next one begins."""

    def on_before_optimizer_step(self, trainer, module, optimizer: torch.optim.Optimizer) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(guard, "_to_host", lambda bad: (bad, Arrived()))
            super().on_before_optimizer_step(trainer, module, optimizer)


class Arrived:
    def synchronize(self) -> None:
        pass


@pytest.mark.parametrize("last", [False, True], ids=["in mid-run", "in the last step"])
@pytest.mark.parametrize("plant", [poison_image(torch.nan), poison_weight, poison_gradient])
def test_a_device_is_not_waited_for_and_the_weights_stay(
    plant, last: bool, make_trainer, module: DiffusionModule, data: DiffusionData, monkeypatch
) -> None:
    """The fused optimizer honours the flag; the host raises one step later, or at the end."""
    monkeypatch.setattr(DiffusionModule, "_fused", True)
    planted = Planted(plant)
    steps = STEP + 1 if last else STEP + 3
    trainer = make_trainer(max_steps=steps, callbacks=[planted, Late()])
    with pytest.raises(NonFiniteError, match=f"before step {STEP}: not finite on rank 0"):
        trainer.fit(module, data)
    assert trainer.global_step == STEP + 1  # taken, without effect
    assert all(torch.equal(p, planted.weights[n]) for n, p in module.named_parameters())


def test_the_norm_is_measured_once_and_clips_as_lightning_does(
    make_trainer, module: DiffusionModule, data: DiffusionData, monkeypatch
) -> None:
    start, weights, measured = copy.deepcopy(module.state_dict()), [], []
    norm = torch.nn.utils.get_total_norm
    monkeypatch.setattr(torch.nn.utils, "get_total_norm", lambda *a: measured.append(1) or norm(*a))
    for callbacks in ([], [NonFiniteGuard()]):
        module.load_state_dict(start)
        trainer = make_trainer(max_steps=3, callbacks=callbacks, gradient_clip_val=1e-3)
        trainer.fit(module, data)
        weights.append([p.detach().clone() for p in module.parameters()])
    assert len(measured) == 3
    for one, other in zip(*weights, strict=True):
        assert torch.equal(one, other)
