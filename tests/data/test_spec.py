import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentError, ArgumentParser
from torch.utils.data import DataLoader

from energydiff.cli.nested import nested
from energydiff.data import Arrays, Cifar10, DataSpec, Digits, Folder, HuggingFace, Idx
from energydiff.errors import UserError
from energydiff.evaluation.data import EvaluationData


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
