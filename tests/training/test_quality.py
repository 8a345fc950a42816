"""The quality monitor says in training what ``energydiff evaluate fid`` says afterwards."""

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from energydiff.data import Digits
from energydiff.diffusion import EquilibriumMatching
from energydiff.errors import UserError
from energydiff.evaluation import (
    EvaluationData,
    Measurement,
    OpenedModel,
    Settings,
    classifier,
)
from energydiff.potentials import MLP
from energydiff.saving import save_model
from energydiff.training import EMA, DiffusionData, DiffusionModule, QualityMonitor


@pytest.fixture
def monitor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> QualityMonitor:
    monkeypatch.setenv("ENERGYDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(classifier, "SHOWN_IMAGES", 3_000)
    return QualityMonitor(
        every_images=16,
        samples=24,
        sampler="euler",
        steps=2,
        batch_size=10,
        data=EvaluationData(Digits(labels=True), small_reference=True),
    )


def test_the_numbers_are_those_of_the_evaluation(
    monitor: QualityMonitor,
    data: DiffusionData,
    module: DiffusionModule,
    make_trainer: Callable[..., pl.Trainer],
    tmp_path: Path,
) -> None:
    seen: list[dict[str, float]] = []
    observe = monitor.observe
    monitor.observe = lambda *args: seen.append(observe(*args)) or seen[-1]  # type: ignore
    ema = EMA(halflife_images=16)
    trainer = make_trainer(max_steps=4, callbacks=[ema, monitor])
    trainer.fit(module, data)
    assert len(seen) == 2  # after 16 and 32 images
    save_model(module.saved_model(), tmp_path / "model")  # averaged weights, after fit
    settings = Settings(
        24, 2, sampler="euler", steps=2, accelerator="cpu", store=tmp_path / "cache"
    )
    measurement = Measurement.open(EvaluationData(small_reference=True), settings)
    found = measurement.measure(OpenedModel.at(tmp_path / "model"))
    expected = {f"quality/{name}": value for name, value in asdict(found.quality).items()}
    assert seen[-1] == pytest.approx(expected, rel=1e-3)
    assert seen[0]["quality/frechet"] != seen[1]["quality/frechet"]  # it is looked at anew


@pytest.mark.parametrize("data_of", ["run", "nobody"])
def test_without_a_source_the_data_are_those_of_the_run(
    data_of: str,
    monitor: QualityMonitor,
    data: DiffusionData,
    module: DiffusionModule,
    make_trainer: Callable[..., pl.Trainer],
) -> None:
    """And never the digits that nobody named."""
    monitor.data = EvaluationData(reference="held_out", extractor="classifier")
    trainer = make_trainer(max_steps=1, callbacks=[monitor])
    if data_of == "nobody":
        with pytest.raises(UserError, match="does not say what data it was trained on"):
            trainer.fit(module, data)
        return
    source = {"class_path": "Digits", "init_args": {"held_out": 0.4}}
    module.config = {"data": {"source": source}}
    trainer.fit(module, data)
    assert monitor._reference is not None
    assert monitor._reference.count == len(Digits(held_out=0.4).open().held_out)


def test_the_extractor_is_no_part_of_the_model(
    monitor: QualityMonitor,
    data: DiffusionData,
    module: DiffusionModule,
    make_trainer: Callable[..., pl.Trainer],
) -> None:
    before = module.state_dict().keys()
    trainer = make_trainer(max_steps=2, callbacks=[monitor])
    trainer.fit(module, data)
    assert module.state_dict().keys() == before
    assert "quality" not in str(monitor.state_dict())


def test_what_cannot_be_measured_is_refused_before_the_first_step(
    module: DiffusionModule, data: DiffusionData, make_trainer: Callable[..., pl.Trainer]
) -> None:
    for samples, sentence in (
        (10_000, "fewer than the 10,000 samples.*samples of QualityMonitor"),
        (19, "at least 20"),
    ):
        monitor = QualityMonitor(samples=samples, data=EvaluationData(Digits(labels=True)))
        trainer = make_trainer(max_steps=2, callbacks=[monitor])
        with pytest.raises(UserError, match=sentence):
            trainer.fit(module, data)
        assert trainer.global_step == 0


def test_the_monitor_leaves_the_generator_of_training_alone(
    monitor: QualityMonitor,
    module: DiffusionModule,
    data: DiffusionData,
    make_trainer: Callable[..., pl.Trainer],
) -> None:
    trainer = make_trainer(max_steps=2, callbacks=[monitor])
    trainer.fit(module, data)
    before = torch.get_rng_state()
    monitor.on_train_start(trainer, module)
    assert torch.equal(torch.get_rng_state(), before)


def test_samples_that_are_not_finite_are_no_images(
    monitor: QualityMonitor,
    module: DiffusionModule,
    data: DiffusionData,
    make_trainer: Callable[..., pl.Trainer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = make_trainer(max_steps=2, callbacks=[monitor])
    trainer.fit(module, data)
    for parameter in module.denoiser.parameters():
        parameter.data.fill_(torch.nan)
    ((name, value),) = monitor.observe(trainer, module).items()
    assert name == "quality/frechet" and math.isnan(value)


def test_a_noise_blind_energy_is_refused(
    monitor: QualityMonitor, data: DiffusionData, make_trainer: Callable[..., pl.Trainer]
) -> None:
    module = DiffusionModule(
        MLP(data.shape, width=8, depth=1),
        data.sigma_data,
        data.normalization,
        parametrization="coercive",
        objective=EquilibriumMatching(),
        batch_size=data.batch_size,
    )
    with pytest.raises(UserError, match="leave it out of trainer"):
        make_trainer(max_steps=2, callbacks=[monitor]).fit(module, data)
