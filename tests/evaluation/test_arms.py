"""One side of a comparison: blocks, costs, and what A against B finds on known cases."""

import copy
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from energydiff.denoisers import build_denoiser
from energydiff.energies import GaussianMixture, NoiseRange
from energydiff.errors import UserError
from energydiff.evaluation import Measurement, OpenedModel, Settings, compare
from energydiff.evaluation.arms import _nearest, costs
from energydiff.evaluation.comparing import matched
from energydiff.evaluation.records import Comparison, Cost, CurvePoint, Matched
from energydiff.potentials import MLP
from energydiff.saving import SavedModel


@pytest.fixture
def energy(exported: dict[str, Path]) -> OpenedModel:
    return OpenedModel.at(exported["energy"])


@pytest.fixture
def baseline(exported: dict[str, Path]) -> OpenedModel:
    return OpenedModel.at(exported["baseline"])


@pytest.fixture
def comparison(measurement: Measurement, energy: OpenedModel, baseline: OpenedModel) -> Comparison:
    return compare(measurement, [energy], [baseline], steps=(2, 3))


def test_a_comparison_holds_everything(comparison: Comparison) -> None:
    a, b = comparison.a, comparison.b
    assert (a.kind, b.kind) == ("energy", "baseline")
    assert a.certificate is not None and b.certificate is None
    assert a.certificate.steps == 40 * 4  # three steps and the final denoising
    assert a.asymmetry < 1e-5 < b.asymmetry
    assert np.shape(a.block_frechet) == np.shape(b.block_frechet) == (1, 2)
    assert comparison.frechet.mean == pytest.approx(
        np.mean(a.block_frechet) - np.mean(b.block_frechet)
    )
    assert comparison.kid.mean == pytest.approx(a.quality.kid - b.quality.kid, rel=0.2)
    assert comparison.over == "blocks of seeds"
    assert comparison.provenance.samples == 40
    assert comparison.controls is not None
    assert comparison.controls.floor.held_out < comparison.controls.floor.samples
    assert comparison.as_dict()["verdict"] == comparison.verdict


def test_a_baseline_costs_one_forward_pass_a_call_and_an_energy_more(
    comparison: Comparison,
) -> None:
    a, b = comparison.a, comparison.b
    assert b.cost.nfe == a.cost.nfe == 4
    assert b.cost.forward_equivalents == pytest.approx(4)
    assert 1.5 * 4 < a.cost.forward_equivalents < 3 * 4
    assert [point.cost.nfe for point in b.curve] == [3, 4]


def test_a_model_against_itself_is_not_separable(
    measurement: Measurement, energy: OpenedModel
) -> None:
    """The same noise: every difference is exactly zero."""
    found = compare(measurement, [energy], [energy], steps=(3,), controls=False)
    assert found.verdict == "not separable"
    assert found.frechet.mean == found.kid.mean == 0
    assert found.matched.nfe == pytest.approx(found.matched_frechet, rel=1e-6)


def test_the_interval_of_several_models_is_over_their_seeds(
    measurement: Measurement, energy: OpenedModel
) -> None:
    sides: tuple[list[OpenedModel], list[OpenedModel]] = ([], [])
    for seed in range(2):
        for side, parametrization in zip(sides, ("inner_product", "unconstrained"), strict=True):
            torch.manual_seed(seed)
            model = build_denoiser(MLP((1, 8, 8), width=16, depth=1), 0.85, parametrization)
            model.noise = NoiseRange(0.02, 10.0)
            saved = replace(energy.saved, denoiser=model.eval().requires_grad_(False))
            side.append(OpenedModel(Path(f"{parametrization}_{seed}"), saved))
    found = compare(measurement, *sides, steps=(3,), controls=False)
    assert found.over == "training seeds"
    assert np.shape(found.a.block_frechet) == (2, 2)
    with pytest.raises(UserError, match="pairs: 2 models on one side and 1 on the other"):
        compare(measurement, sides[0], sides[1][:1], steps=(3,))


def test_an_image_is_its_own_nearest_neighbour(measurement: Measurement) -> None:
    train, held_out = measurement.splits
    images = train.normalization.encode(torch.stack([train[i][0] for i in (3, 1_400, 1_498)]))
    found = _nearest(images, train, held_out)
    assert found.samples == pytest.approx(0, abs=2e-3) and found.held_out > 0.1
    moved = _nearest(images + 0.05, train, held_out)
    assert moved.samples == pytest.approx(0.05, abs=2e-3)


def test_costs_grow_with_the_steps(measurement: Measurement, baseline: OpenedModel) -> None:
    (few,), (many,) = (
        costs([baseline.saved], replace(measurement.settings, steps=k)) for k in (2, 20)
    )
    assert (few.nfe, many.nfe) == (3, 21)
    assert many.forward_equivalents == pytest.approx(7 * few.forward_equivalents)


def test_cost_is_matched_on_the_curve_over_its_logarithm() -> None:
    curve = [CurvePoint(n, Cost(n, 2.0 * n, 0.1 * n), 10.0 / n) for n in (4, 16)]
    found = matched(Cost(8, 8.0, 10.0), curve)
    assert found.nfe == pytest.approx((10 / 4 + 10 / 16) / 2)
    assert found.forward_equivalents == pytest.approx(10 / 4)
    assert found.seconds is None  # beyond the curve


def test_without_a_curve_nothing_is_matched() -> None:
    assert matched(Cost(8, 8.0, 10.0), []) == Matched(None, None, None)


def test_a_mixture_in_closed_form_has_no_forward_pass_to_count(measurement: Measurement) -> None:
    mixture = GaussianMixture(torch.zeros(1, 1, 8, 8), 0.5)
    mixture.noise = NoiseRange(0.02, 10.0)
    saved = SavedModel(mixture, measurement.splits.train.normalization)
    (found,) = costs([saved], measurement.settings)
    assert found.nfe == 4 and math.isnan(found.forward_equivalents)


def test_a_model_is_no_second_training_seed(
    measurement: Measurement, energy: OpenedModel, baseline: OpenedModel, tmp_path: Path
) -> None:
    again = OpenedModel.at(shutil.copytree(energy.path, tmp_path / "again"))
    with pytest.raises(UserError, match=r"energy and .*again are one model"):
        compare(measurement, [energy, again], [baseline] * 2)


def test_all_training_seeds_are_drawn_alike(
    measurement: Measurement, energy: OpenedModel, baseline: OpenedModel
) -> None:
    louder = copy.deepcopy(baseline.saved.denoiser)
    louder.noise = NoiseRange(0.02, 20.0)
    other = OpenedModel(Path("other"), replace(baseline.saved, denoiser=louder))
    with pytest.raises(UserError, match="their sigma_max differs"):
        compare(measurement, [energy, baseline], [energy, other])


@pytest.mark.parametrize(("samples", "blocks"), [(10, 3), (10, 1), (4, 4), (0, 2)])
def test_blocks_must_divide_the_samples(samples: int, blocks: int) -> None:
    with pytest.raises(UserError, match="equal blocks"):
        Settings(samples, blocks)
