"""The data that samples are measured against."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from energydiff.data import Digits, Normalization
from energydiff.errors import UserError
from energydiff.evaluation.data import EvaluationData


def config(source: str, **options: Any) -> dict[str, Any]:
    """What a run records."""
    return {"data": {"source": {"class_path": f"energydiff.data.{source}", "init_args": options}}}


def test_more_samples_than_reference_images_must_be_said() -> None:
    data = EvaluationData()
    source = data.reference_of(data.open())
    data.require_enough(len(source), source)
    with pytest.raises(UserError, match=r"has 1,\d+ images, fewer than the 10,000 samples.*small"):
        data.require_enough(10_000, source)
    EvaluationData(small_reference=True).require_enough(10_000, source)


def test_the_reference_is_the_part_named() -> None:
    splits = EvaluationData().open()
    assert len(EvaluationData().reference_of(splits)) == len(splits.train)
    assert len(EvaluationData(reference="held_out").reference_of(splits)) == len(splits.held_out)


def test_a_runs_own_data_come_with_their_labels() -> None:
    data = EvaluationData.of_run(config("Digits", labels=False, held_out=0.25), Path("runs/a"))
    assert data == EvaluationData(Digits(labels=True, held_out=0.25), small_reference=True)


def test_a_runs_values_are_mapped_as_it_mapped_them(tmp_path: Path) -> None:
    """Samples and reference are rounded to uint8 on one scale."""
    file = tmp_path / "images.npy"
    np.save(file, np.linspace(0, 0.5, 20 * 64, dtype=np.float32).reshape(20, 8, 8))
    run = config("Arrays", root=str(file), value_range=[0.0, 1.0])
    train = EvaluationData.of_run(run, Path("runs/a")).open().train
    assert train.normalization == Normalization(0.0, 1.0)


def test_images_are_taken_from_all_classes(tmp_path: Path) -> None:
    """Files in class folders lie one class after another."""
    source = EvaluationData().open().train
    ordered = source.select(np.argsort(source.labels, kind="stable"))
    part = ordered.spread(100)
    assert len(part) == len(set(part.names)) == 100
    assert len({part[i][1] for i in range(100)}) == 10
    assert ordered.spread(10_000).names == ordered.names


def test_a_model_without_a_run_needs_to_be_told() -> None:
    with pytest.raises(UserError, match="does not say what data it was trained on: give --data"):
        EvaluationData.of_run({}, Path("model"))
