"""The score is the same inside every loop of Lightning, whatever it does to gradients."""

from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from energydiff.denoisers import EnergyDenoiser
from energydiff.potentials import MLP, InnerProduct

SIGMA, SHAPE = 0.7, (1, 4, 4)


class Scores(pl.LightningModule):
    """Notes the score of the batch in every kind of step, without training anything."""

    def __init__(self, energy: EnergyDenoiser) -> None:
        super().__init__()
        self.energy = energy
        self.idle = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[str, list[Tensor]] = {}
        self.modes: dict[str, tuple[bool, bool]] = {}

    def note(self, step: str, x: Tensor) -> None:
        self.modes[step] = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        self.seen.setdefault(step, []).append(self.energy.score(x, SIGMA).detach().clone())

    def training_step(self, x: Tensor, index: int) -> Tensor:
        self.note("training", x)
        return self.idle * 0.0

    def validation_step(self, x: Tensor, index: int) -> None:
        self.note("validation", x)

    def test_step(self, x: Tensor, index: int) -> None:
        self.note("test", x)

    def predict_step(self, x: Tensor, index: int) -> None:
        self.note("predict", x)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.idle], lr=0.0)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(6, *SHAPE)


@pytest.fixture
def module() -> Scores:
    energy = EnergyDenoiser(InnerProduct(MLP(SHAPE, width=8, depth=1)), 0.6)
    with torch.no_grad():
        for parameter in energy.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return Scores(energy)


def one_batch(x: Tensor) -> DataLoader[Tensor]:
    return DataLoader(x, batch_size=len(x))  # type: ignore[arg-type]


def seen_in(loop: str, trainer: pl.Trainer, module: Scores, x: Tensor) -> None:
    options: dict[str, Any] = {"return_predictions": False} if loop == "predict" else {}
    getattr(trainer, loop)(module, one_batch(x), **options)


@pytest.mark.parametrize("inference_mode", [True, False])
@pytest.mark.parametrize("loop", ["validate", "test", "predict"])
def test_outside_fit_the_score_is_the_same(
    loop: str, inference_mode: bool, make_trainer, module: Scores, x: Tensor
) -> None:
    outside = module.energy.eval().score(x, SIGMA)
    trainer = make_trainer(inference_mode=inference_mode, limit_val_batches=1)
    seen_in(loop, trainer, module, x)
    step = {"validate": "validation"}.get(loop, loop)
    assert module.modes[step] == (False, inference_mode)  # the trap is set
    assert torch.equal(module.seen[step][0], outside)


@pytest.mark.parametrize("inference_mode", [True, False])
def test_inside_fit_the_score_is_the_same(
    inference_mode: bool, make_trainer, module: Scores, x: Tensor
) -> None:
    """Training steps, and the validation between them."""
    outside = module.energy.score(x, SIGMA)
    trainer = make_trainer(
        max_epochs=1,
        limit_val_batches=1,
        check_val_every_n_epoch=1,
        inference_mode=inference_mode,
    )
    trainer.fit(module, one_batch(x), one_batch(x))
    assert module.modes["training"] == (True, False)
    assert module.modes["validation"] == (False, False)
    for step in ("training", "validation"):
        assert torch.equal(module.seen[step][0], outside)
