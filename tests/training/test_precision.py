"""bf16-mixed: the network may run in bfloat16, losses and energies do not."""

from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from energydiff.potentials import InnerProduct, SummedOutput, UNet
from energydiff.training import EMA, DiffusionData, DiffusionModule
from energydiff.training.guard import NonFiniteGuard


class Losses(pl.Callback):
    def __init__(self) -> None:
        self.losses: list[Tensor] = []
        self.weights: list[torch.dtype] = []
        self.convolved: list[torch.dtype] = []

    def on_fit_start(self, trainer: pl.Trainer, module: DiffusionModule) -> None:
        network = module.denoiser.potential.backbone.input
        network.register_forward_hook(lambda _, __, y: self.convolved.append(y.dtype))

    def on_train_batch_end(self, trainer: pl.Trainer, module: DiffusionModule, *_: Any) -> None:
        assert module.losses is not None
        self.losses.append(module.losses)
        self.weights += {p.dtype for p in module.parameters()}


def unet_module(data: DiffusionData) -> DiffusionModule:
    torch.manual_seed(0)
    backbone = UNet(data.shape, 4, (1, 2), 1, attention_resolutions=(4,), head_width=4)
    return DiffusionModule(
        backbone, data.sigma_data, data.normalization, batch_size=8, warmup_images=0
    )


@pytest.fixture
def losses_of(make_trainer, data: DiffusionData):
    def fit(precision: str) -> Losses:
        losses = Losses()
        callbacks = [EMA(), losses, NonFiniteGuard()]
        trainer = make_trainer(max_steps=4, precision=precision, callbacks=callbacks)
        trainer.fit(unet_module(data), data)
        return losses

    return fit


def test_losses_are_float32_and_finite(losses_of) -> None:
    mixed = losses_of("bf16-mixed")
    assert torch.bfloat16 in mixed.convolved  # the network does run in bfloat16
    assert {losses.dtype for losses in mixed.losses} == {torch.float32}
    assert set(mixed.weights) == {torch.float32}
    assert all(bool(losses.isfinite().all()) for losses in mixed.losses)


def test_the_losses_are_those_of_float32_to_bfloat16s_precision(losses_of) -> None:
    mixed, full = (torch.stack(losses_of(p).losses) for p in ("bf16-mixed", "32-true"))
    assert_close(mixed, full, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("training", [True, False])
def test_energies_are_float32_under_autocast(training: bool, data: DiffusionData) -> None:
    energy = unet_module(data).denoiser.train(training)
    x = torch.randn(4, *data.shape)
    with torch.autocast("cpu", torch.bfloat16):
        value, grad = energy.value_and_grad(x, 0.5)
    assert value.dtype == grad.dtype == torch.float32
    assert bool(value.isfinite().all() and grad.isfinite().all())


@pytest.mark.parametrize("potential", [InnerProduct, SummedOutput])
def test_potentials_are_summed_in_float32(potential, data: DiffusionData) -> None:
    phi = potential(unet_module(data).denoiser.potential.backbone)
    u = torch.randn(4, *data.shape)
    with torch.autocast("cpu", torch.bfloat16):
        assert phi(u, torch.zeros(4)).dtype == torch.float32


def test_an_energy_in_eval_mode_does_not_notice_autocast(data: DiffusionData) -> None:
    energy = unet_module(data).denoiser.eval()
    x = torch.randn(4, *data.shape)
    outside = energy.value_and_grad(x, 0.5)
    with torch.autocast("cpu", torch.bfloat16):
        inside = energy.value_and_grad(x, 0.5)
    assert all(torch.equal(one, other) for one, other in zip(inside, outside, strict=True))
