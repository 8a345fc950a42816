"""The memorisation monitor says in training what sorting the samples says afterwards."""

from collections.abc import Callable

import lightning.pytorch as pl
import pytest
import torch

from energydiff.data import Digits, Subset
from energydiff.diffusion import EquilibriumMatching
from energydiff.drawing import Drawing, draw_samples
from energydiff.errors import UserError
from energydiff.evaluation.settings import named_sampler
from energydiff.likelihood import held_out_loss
from energydiff.memorisation import Phase, Rule, sort_samples
from energydiff.potentials import MLP
from energydiff.sampling import geometric_sigmas
from energydiff.training import EMA, DiffusionData, DiffusionModule, MemorisationMonitor


@pytest.fixture
def few() -> DiffusionData:
    return DiffusionData(Digits(), Subset(6), batch_size=8)


def test_the_numbers_are_those_of_sorting(
    few: DiffusionData, module: DiffusionModule, make_trainer: Callable[..., pl.Trainer]
) -> None:
    monitor = MemorisationMonitor([9, 24], samples=20, sampler="euler", steps=3, batch_size=7)
    seen: list[dict[str, float]] = []
    observe = monitor.observe
    monitor.observe = lambda *args: seen.append(observe(*args)) or seen[-1]  # type: ignore
    trainer = make_trainer(max_steps=3, callbacks=[EMA(halflife_images=16), monitor])
    trainer.fit(module, few)
    assert len(seen) == 2  # after 16 images, the first whole steps past 9, and after 24
    denoiser = module.denoiser.eval()  # averaged weights, after fit
    sampler = named_sampler("euler", 3, *denoiser.require_noise())
    samples = draw_samples(denoiser, sampler, range(20), Drawing(), trace=False).samples
    train = few.train_source.clean()
    rule = Rule.calibrated(few.held_out_source.clean(), train, block=20)
    found = sort_samples(samples, train, rule)
    levels = geometric_sigmas(8, *denoiser.require_noise())
    expected = {phase.name.lower(): found.share(phase) for phase in Phase} | {
        "copies": found.copies,
        "train_loss": held_out_loss(denoiser, few.train_source, levels, few.sigma_data),
        "held_out_loss": held_out_loss(
            denoiser, few.held_out_source.spread(20), levels, few.sigma_data
        ),
    }
    assert seen[-1] == pytest.approx({f"memorisation/{n}": v for n, v in expected.items()}, 1e-4)
    assert seen[0]["memorisation/train_loss"] != seen[1]["memorisation/train_loss"]


def test_a_model_that_gives_back_its_images_is_seen_to(
    few: DiffusionData, module: DiffusionModule, make_trainer: Callable[..., pl.Trainer]
) -> None:
    """With thresholds that are given."""
    images = few.train_source.clean()
    monitor = MemorisationMonitor([8], samples=6, memorised=0.1, spurious=0.1, steps=2)
    trainer = make_trainer(max_steps=1, callbacks=[monitor])
    trainer.fit(module, few)
    values = monitor._measured(module.denoiser, few, images + 1e-3)
    assert values["memorisation/memorised"] == values["memorisation/copies"] == 1
    values = monitor._measured(module.denoiser, few, torch.zeros_like(images))
    assert values["memorisation/spurious"] == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"at_images": []}, "image counts of at least 1"),
        ({"at_images": [0]}, "image counts of at least 1"),
        ({"at_images": [8], "samples": 1}, "two samples"),
        ({"at_images": [8], "memorised": 0.1}, "both thresholds or none"),
    ],
)
def test_what_it_refuses(options: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        MemorisationMonitor(**options)


def test_what_it_cannot_watch(
    few: DiffusionData, module: DiffusionModule, make_trainer: Callable[..., pl.Trainer]
) -> None:
    nothing = DiffusionData(Digits(held_out=0), Subset(6), batch_size=8)
    with pytest.raises(UserError, match="held_out is 0"):
        make_trainer(max_steps=1, callbacks=[MemorisationMonitor([8])]).fit(module, nothing)
    blind = DiffusionModule(
        MLP(few.shape, width=8, depth=1),
        few.sigma_data,
        few.normalization,
        parametrization="dot",
        objective=EquilibriumMatching(),
        batch_size=8,
    )
    with pytest.raises(UserError, match="noise-blind energy has not"):
        make_trainer(max_steps=1, callbacks=[MemorisationMonitor([8])]).fit(blind, few)


def test_a_subset_keeps_the_rms_of_all(few: DiffusionData) -> None:
    """Losses at different sizes are of one preconditioning, and a run's record brings it back."""
    assert few.sigma_data == DiffusionData(Digits()).sigma_data
    assert len(few.train_source) == 6 and len(few.held_out_source) == 298
    source = {"class_path": "Digits", "init_args": {}}
    config = {"data": {"source": source, "subset": {"images": 6, "seed": 0, "skip": 0}}}
    again = DiffusionData.of_run(config)
    assert again.train_source.names == few.train_source.names
