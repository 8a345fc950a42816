"""What the comparison must find: nothing between a model and itself, and half the training."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from energydiff.evaluation.comparing import compare
from energydiff.evaluation.data import EvaluationData
from energydiff.evaluation.drawing import Drawing
from energydiff.evaluation.measurement import Measurement
from energydiff.evaluation.paired import t_interval

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
            timeout=600,
        )
        assert done.code == 0, done.err
    return runs


@pytest.fixture(scope="module")
def measurement(tmp_path_factory: pytest.TempPathFactory) -> Measurement:
    data = EvaluationData(small_reference=True)
    how = Drawing("heun", 18, 0, 256, 1, "cpu")
    return Measurement.open(data, BLOCKS * 200, BLOCKS, how, tmp_path_factory.mktemp("store"))


def test_a_model_is_not_separable_from_itself(
    measurement: Measurement, trained: dict[int, Path]
) -> None:
    """20 comparisons with other seeds each, 95 % of them within binomial error."""
    draws = measurement.side([trained[IMAGES]]).draws[0]
    count = 2 * COMPARISONS * BLOCKS
    features = measurement.extractor.features(draws.features(0, count * SIZE))
    distances = [measurement.distance(part) for part in features.split(SIZE)]
    pairs = np.reshape(distances, (COMPARISONS, 2, BLOCKS))
    same = sum(t_interval(a - b).verdict == "not separable" for a, b in pairs)
    assert stats.binomtest(same, COMPARISONS, 0.95).pvalue > 0.01, same


def test_half_the_training_is_found_worse(
    measurement: Measurement, trained: dict[int, Path]
) -> None:
    found = compare(measurement, [trained[IMAGES // 2]], [trained[IMAGES]], steps=(18,))
    assert found.verdict == "worse", found.frechet
    assert found.kid.verdict == "worse", found.kid
    assert found.controls is not None and found.controls.same.verdict == "not separable"
