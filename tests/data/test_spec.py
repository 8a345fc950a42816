import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentError, ArgumentParser
from torch.utils.data import DataLoader

from energydiff.cli.nested import nested
from energydiff.data import (
    Arrays,
    Cifar10,
    DataSpec,
    Digits,
    Folder,
    HuggingFace,
    Idx,
    Normalization,
    Splits,
)
from energydiff.data.source import ArraySource, index_names
from energydiff.errors import UserError
from energydiff.evaluation.data import EvaluationData
from energydiff.training import DiffusionData


def test_digits() -> None:
    train, held_out = Digits(labels=True).open()
    assert len(train) + len(held_out) == 1797
    assert len(held_out) == pytest.approx(300, abs=40)
    assert not set(train.names) & set(held_out.names)
    assert train.classes == tuple("0123456789")
    assert (train.normalization.low, train.normalization.high) == (0, 16)
    values = torch.stack([train[i][0] for i in range(len(train))])
    assert values.shape[1:] == train.shape == (1, 8, 8)
    assert values.dtype == torch.uint8
    assert (values.min(), values.max()) == (0, 16)
    assert {label for _, label in held_out} == set(range(10))


def test_digits_match_their_published_order() -> None:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    for part in Digits(labels=True).open():
        for i in (0, 17, len(part) - 1):
            row = int(part.names[i])
            assert part[i][0].flatten().tolist() == images[row].tolist()
            assert part[i][1] == labels[row]


def test_without_labels_there_are_no_classes() -> None:
    train, held_out = Digits().open()
    assert train.classes == held_out.classes == ()
    assert train[0][1] == held_out[0][1] == -1


def test_a_source_can_be_pickled_and_ends() -> None:
    source = Digits().open().held_out
    copy = pickle.loads(pickle.dumps(source))
    assert torch.equal(copy[5][0], source[5][0])
    with pytest.raises(IndexError):
        source[len(source)]


def test_a_loader_batches_it() -> None:
    batch, labels = next(iter(DataLoader(Digits(labels=True).open().train, batch_size=16)))
    assert batch.shape == (16, 1, 8, 8)
    assert labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["Faces"], "data.source is Faces: choose Arrays, Cifar10, Digits, Folder, HuggingFace"),
        (["Folder", "root=x", "channels=2"], "data.source.channels expects"),
        (["Folder"], "Folder needs data.source.root"),
        (["Digits", "root=x"], "data.source.root has no meaning for Digits: leave it out"),
        (["Digits", "image_size=8"], "data.source.image_size has no meaning"),
        (["Idx", "root=x", "channels=1"], "data.source.channels has no meaning"),
        (["Idx", "root=x", "held_out=0.1"], "data.source.held_out has no meaning"),
        (["Folder", "root=x", "value_range=[0,1]"], "data.source.value_range has no"),
    ],
)
def test_options_of_another_source_are_refused(options: list[str], message: str) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(EvaluationData, "data")
    source, *others = options
    with pytest.raises(ArgumentError) as refused:
        parser.parse_args([f"--data.source={source}", *(f"--data.source.{o}" for o in others)])
    assert message in (nested(str(refused.value), {"data.source": DataSpec}) or "")


@pytest.mark.parametrize("source", [Folder, Arrays, Idx, Cifar10, HuggingFace])
def test_a_missing_root_is_named(tmp_path: Path, source: Callable[[Path], DataSpec]) -> None:
    with pytest.raises(UserError, match="nowhere"):
        source(tmp_path / "nowhere").open()


def test_a_source_describes_itself_in_words() -> None:
    assert Digits().describe() == "digits"
    assert Idx("a/b").describe() == "idx at a/b"
    assert HuggingFace("a").describe() == "Hugging Face data at a"


def test_clean_data_are_spread_evenly_in_model_coordinates() -> None:
    source = Digits().open().train
    clean = source.clean(100)
    rows = np.linspace(0, len(source) - 1, 100).round().astype(int)
    raw = torch.stack([source[i][0] for i in rows])
    assert torch.equal(clean, source.normalization.encode(raw))
    assert len(set(rows)) == 100
    assert source.clean().shape == source.clean(10_000).shape == (len(source), 1, 8, 8)


@dataclass(frozen=True)
class Waves(DataSpec):
    """A source from outside the package.

    Args:
        count: how many waves.
        phases: the first and the last phase.
    """

    count: int
    phases: tuple[float, float] = (0.0, 1.0)

    def open(self) -> Splits:
        phases = np.linspace(*self.phases, self.count)[:, None]
        waves = np.sin(phases + np.arange(4)).astype(np.float32)
        source = ArraySource(waves, Normalization(-1, 1), index_names(self.count))
        rows = np.arange(self.count)
        return Splits(source.select(rows[2:]), source.select(rows[:2]))


@pytest.fixture
def waves(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A run's configuration with that source."""
    monkeypatch.setitem(sys.modules, "waves", sys.modules[__name__])
    spec = {"class_path": "waves.Waves", "init_args": {"count": 9, "phases": [0.5, 2]}}
    return {"data": {"source": spec, "batch_size": 4}}


def test_a_source_of_ones_own_is_built_again_from_a_configuration(waves: dict[str, Any]) -> None:
    data = DiffusionData.of_run(waves)
    assert (len(data.train_source), data.shape, data.batch_size) == (7, (4,), 4)
    evaluated = EvaluationData.of_run(waves, Path("run"))
    assert evaluated == EvaluationData(Waves(9, (0.5, 2)), small_reference=True)
    assert evaluated.describe() == "waves, train part"


def test_a_source_whose_module_is_not_imported_is_not_imported(
    waves: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "waves")
    for build in (DiffusionData.of_run, lambda run: EvaluationData.of_run(run, Path("run"))):
        with pytest.raises(UserError, match=r"data\.source.*waves\.Waves.*add --import waves"):
            build(waves)


def test_a_recorded_option_that_is_gone_is_named(waves: dict[str, Any]) -> None:
    waves["data"]["source"]["init_args"]["colour"] = "red"
    with pytest.raises(UserError, match=r"data\.source.*waves\.Waves.*'colour'"):
        DiffusionData.of_run(waves)


def test_a_configuration_of_another_form_is_refused() -> None:
    with pytest.raises(UserError, match="'digits': a class_path"):
        DiffusionData.of_run({"data": {"source": "digits"}})
    with pytest.raises(UserError, match="does not say what data it was trained on"):
        DiffusionData.of_run({})
