"""Noise-blind energies and penalties in training: what is chosen at its end and what is kept."""

from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

import energydiff
from energydiff.denoisers import BlindEnergy
from energydiff.diffusion import (
    DenoisingScoreMatching,
    EnergyMatching,
    EquilibriumMatching,
    MonotoneDenoiser,
    Objective,
    Penalised,
    UniformTime,
)
from energydiff.potentials import MLP
from energydiff.training import DiffusionData, DiffusionModule
from energydiff.training.finish import CalibrateAndExport
from energydiff.training.monitor import LyapunovMonitor


def trained(
    data: DiffusionData, trainer: pl.Trainer, parametrization: str, objective: Objective
) -> DiffusionModule:
    torch.manual_seed(0)
    module = DiffusionModule(
        MLP(data.shape, width=8, depth=1),
        data.sigma_data,
        data.normalization,
        parametrization,
        objective,
        batch_size=data.batch_size,
    )
    trainer.fit(module, data)
    return module


@pytest.mark.parametrize("objective", [EquilibriumMatching(), EnergyMatching()])
def test_the_resting_norm_is_the_median_over_held_out_images_and_is_saved(
    objective: Objective,
    data: DiffusionData,
    make_trainer: Callable[..., pl.Trainer],
    tmp_path: Path,
) -> None:
    watch = LyapunovMonitor(every_images=8, samples=4, steps=3, probe_images=16)
    trainer = make_trainer(max_steps=2, callbacks=[watch, CalibrateAndExport(images=50)])
    energy = trained(data, trainer, "coercive", objective).denoiser.eval()
    assert isinstance(energy, BlindEnergy)
    held_out = data.held_out_source.clean(50)
    norms = energy.value_and_grad(held_out, 1.0)[1].flatten(1).norm(dim=1)
    assert energy.resting_norm.item() == pytest.approx(norms.quantile(0.5).item())
    again = energydiff.load(tmp_path)
    assert torch.equal(again.resting_norm, energy.resting_norm)
    assert torch.equal(energydiff.load(tmp_path / "export").resting_norm, energy.resting_norm)
    assert sorted(f.name for f in (tmp_path / "samples").iterdir())[0] == "000000008.png"


def test_an_objective_brings_its_own_noise(data: DiffusionData) -> None:
    network = MLP(data.shape, width=8, depth=1)
    arguments = (network, data.sigma_data, data.normalization, "coercive", EquilibriumMatching())
    assert DiffusionModule(*arguments).noise == UniformTime()


def test_the_direction_of_a_penalty_is_kept_with_the_checkpoint(
    data: DiffusionData, make_trainer: Callable[..., pl.Trainer], tmp_path: Path
) -> None:
    objective = Penalised(DenoisingScoreMatching(), [MonotoneDenoiser()])
    trainer = make_trainer(max_steps=2)
    trained(data, trainer, "inner_product", objective)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"]
    moved = saved["objective.penalties.0.direction"]
    assert moved.shape == data.shape
    fresh = MonotoneDenoiser()
    fresh.prepare(energydiff.energies.EmpiricalData(torch.zeros(1, *data.shape)))
    assert not torch.equal(moved, fresh.direction)
