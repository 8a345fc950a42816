import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from energydiff.data import open_data
from energydiff.errors import UserError


def test_digits() -> None:
    train, held_out = open_data(labels=True)
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
    for part in open_data(labels=True):
        for i in (0, 17, len(part) - 1):
            row = int(part.names[i])
            assert part[i][0].flatten().tolist() == images[row].tolist()
            assert part[i][1] == labels[row]


def test_without_labels_there_are_no_classes() -> None:
    train, held_out = open_data()
    assert train.classes == held_out.classes == ()
    assert train[0][1] == held_out[0][1] == -1


def test_a_source_can_be_pickled_and_ends() -> None:
    source = open_data().held_out
    copy = pickle.loads(pickle.dumps(source))
    assert torch.equal(copy[5][0], source[5][0])
    with pytest.raises(IndexError):
        source[len(source)]


def test_a_loader_batches_it() -> None:
    batch, labels = next(iter(DataLoader(open_data(labels=True).train, batch_size=16)))
    assert batch.shape == (16, 1, 8, 8)
    assert labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "faces"}, "data.source is 'faces': choose digits, folder"),
        ({"source": "folder"}, "data.source folder needs data.root"),
        ({"source": "digits", "root": "x"}, "data.root has no meaning for data.source digits"),
        ({"source": "digits", "image_size": 8}, "data.image_size has no meaning"),
        ({"source": "idx", "root": "x", "channels": 1}, "data.channels has no meaning"),
        ({"source": "idx", "root": "x", "held_out": 0.1}, "data.held_out has no meaning"),
        ({"source": "folder", "root": "x", "value_range": (0, 1)}, "data.value_range has no"),
    ],
)
def test_options_of_another_source_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_data(**arguments)


@pytest.mark.parametrize("source", ["folder", "arrays", "idx", "cifar10"])
def test_a_missing_root_is_named(tmp_path: Path, source: Any) -> None:
    with pytest.raises(UserError, match="nowhere"):
        open_data(source, root=tmp_path / "nowhere")
