"""What the comparison must find: nothing between a model and itself, and half the training."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from energydiff.evaluation import EvaluationData, Measurement, OpenedModel, Settings, compare
from energydiff.evaluation.intervals import t_interval

IMAGES = 64_000
COMPARISONS, BLOCKS, SIZE = 20, 5, 100

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(process, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """An MLP energy of digits, by the images it was trained on."""
    runs = {}
    for images in (IMAGES // 2, IMAGES):
        runs[images] = tmp_path_factory.mktemp("runs") / str(images)
        done = process(
            *("fit", "--config", "configs/digits/energy_mlp.yaml"),
            *("--model.total_images", images, "--monitor.every_images", 10**9),
            *("--trainer.default_root_dir", runs[images]),
        )
        assert done.code == 0, done.err
    return runs


@pytest.fixture(scope="module")
def measurement(tmp_path_factory: pytest.TempPathFactory) -> Measurement:
    data = EvaluationData(small_reference=True)
    store = tmp_path_factory.mktemp("store")
    settings = Settings(BLOCKS * 200, BLOCKS, batch_size=256, accelerator="cpu", store=store)
    return Measurement.open(data, settings)


def test_a_model_is_not_separable_from_itself(
    measurement: Measurement, trained: dict[int, Path]
) -> None:
    """20 comparisons with other seeds each, 95 % of them within binomial error."""
    candidate = measurement.candidate(OpenedModel.at(trained[IMAGES]))
    count = 2 * COMPARISONS * BLOCKS
    features = measurement.extractor.features(candidate.features(0, count * SIZE))
    distances = [measurement.distance(part) for part in features.split(SIZE)]
    pairs = np.reshape(distances, (COMPARISONS, 2, BLOCKS))
    same = sum(t_interval(a - b).verdict == "not separable" for a, b in pairs)
    assert stats.binomtest(same, COMPARISONS, 0.95).pvalue > 0.01, same


def test_half_the_training_is_found_worse(
    measurement: Measurement, trained: dict[int, Path]
) -> None:
    half, whole = (OpenedModel.at(trained[images]) for images in (IMAGES // 2, IMAGES))
    found = compare(measurement, [half], [whole], steps=(18,))
    assert found.verdict == "worse", found.frechet
    assert found.kid.verdict == "worse", found.kid
    # One control in twenty is separable by chance, so that it is held by its size alone.
    assert found.controls is not None
    assert found.frechet.mean > 3 * abs(found.controls.same.mean)
