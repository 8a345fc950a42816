import io
import os
import pickle
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from energydiff.data import Cifar10
from energydiff.errors import UserError

RANDOM = np.random.default_rng(0)
NAMES = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
PIXELS = {name: RANDOM.integers(0, 256, (10, 3072), dtype=np.uint8) for name in NAMES}
LABELS = {name: RANDOM.permutation(10).tolist() for name in NAMES}


def binary(name: str) -> bytes:
    return np.column_stack([np.array(LABELS[name], np.uint8), PIXELS[name]]).tobytes()


def pickled(name: str, protocol: int = 2) -> bytes:
    batch = {b"batch_label": name.encode(), b"labels": LABELS[name], b"data": PIXELS[name]}
    return pickle.dumps(batch, protocol)


def unpacked(tmp_path: Path, version: str) -> Path:
    folder = tmp_path / f"cifar-10-batches-{version}"
    folder.mkdir()
    (folder / "readme.html").write_text("published beside the batches")
    for name in NAMES:
        if version == "bin":
            (folder / f"{name}.bin").write_bytes(binary(name))
        else:
            (folder / name).write_bytes(pickled(name))
    return folder


def archive(tmp_path: Path, version: str) -> Path:
    folder = unpacked(tmp_path, version)
    path = tmp_path / f"cifar-10-{'binary' if version == 'bin' else 'python'}.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, folder.name)
    shutil.rmtree(folder)
    return path


@pytest.mark.parametrize("version", ["bin", "py"])
@pytest.mark.parametrize("make", [unpacked, archive])
@pytest.mark.parametrize("inside", [False, True])
def test_every_published_form(tmp_path: Path, version: str, make: Any, inside: bool) -> None:
    place = make(tmp_path, version)
    train, held_out = Cifar10(place if inside else tmp_path, labels=True).open()
    assert (len(train), len(held_out)) == (50, 10)
    assert train.shape == (3, 32, 32)
    assert train.classes[3] == "cat"
    assert held_out.names[0] == "test/000000"
    samples = torch.stack([sample for sample, _ in train]).flatten(1)
    assert samples.dtype == torch.uint8
    assert np.array_equal(samples.numpy(), np.concatenate([PIXELS[name] for name in NAMES[:5]]))
    assert [label for _, label in train] == [k for name in NAMES[:5] for k in LABELS[name]]
    assert [label for _, label in held_out] == LABELS["test_batch"]
    assert Cifar10(tmp_path).open().train[0][1] == -1


@pytest.mark.parametrize("protocol", range(5))
def test_pickles_of_any_protocol_that_numpy_writes_alike(tmp_path: Path, protocol: int) -> None:
    folder = unpacked(tmp_path, "py")
    (folder / "test_batch").write_bytes(pickled("test_batch", protocol))
    _, held_out = Cifar10(tmp_path).open()
    assert np.array_equal(held_out[4][0].flatten().numpy(), PIXELS["test_batch"][4])


def test_a_pickle_as_python_2_wrote_it(tmp_path: Path) -> None:
    """The published files: byte strings, and an array in the old place of numpy's functions."""
    folder = unpacked(tmp_path, "py")
    content = pickled("test_batch").replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    (folder / "test_batch").write_bytes(content)
    _, held_out = Cifar10(tmp_path).open()
    assert np.array_equal(held_out[4][0].flatten().numpy(), PIXELS["test_batch"][4])


class Call:
    """Pickles as a call of the function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", ["os.mkdir", "builtins.eval", "numpy.save", "builtins.getattr"])
def test_a_malicious_pickle_is_refused_and_not_run(
    tmp_path: Path, protocol: int, name: str
) -> None:
    folder = unpacked(tmp_path, "py")
    trace = tmp_path / "was-run"
    attack = {
        "os.mkdir": Call(os.mkdir, str(trace)),
        "builtins.eval": Call(eval, f"__import__('os').mkdir({str(trace)!r})"),
        "numpy.save": Call(np.save, str(trace), 1),
        "builtins.getattr": Call(getattr, "", "join"),
    }[name]
    batch = {b"labels": LABELS["test_batch"], b"data": PIXELS["test_batch"], b"x": attack}
    (folder / "test_batch").write_bytes(pickle.dumps(batch, protocol))
    with pytest.raises(UserError, match=r"test_batch asks for .*, which .* was not run"):
        Cifar10(tmp_path).open()
    assert not list(tmp_path.glob("was-run*"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickled("test_batch")[:-30], "is not a CIFAR-10 batch"),
        (b"", "is not a CIFAR-10 batch"),
        (pickle.dumps([1, 2], 2), "is not a CIFAR-10 batch"),
        (pickle.dumps({b"labels": [0], b"data": b"bytes"}, 2), "is not a CIFAR-10 batch"),
        (pickle.dumps({b"labels": [0], b"data": np.zeros(3072)}, 2), "array that is not uint8"),
        (pickle.dumps({b"labels": [0], b"data": np.array([None])}, 2), "array that is not uint8"),
        (
            pickle.dumps({b"labels": [1, 2], b"data": PIXELS["test_batch"]}, 2),
            "does not hold one label from 0 to 9 for each of its 10 images",
        ),
        (
            pickle.dumps({b"labels": [10] * 10, b"data": PIXELS["test_batch"]}, 2),
            "does not hold one label from 0 to 9",
        ),
    ],
)
def test_a_damaged_pickle_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (unpacked(tmp_path, "py") / "test_batch").write_bytes(content)
    with pytest.raises(UserError, match=rf"cifar-10-batches-py: test_batch .*{message}"):
        Cifar10(tmp_path).open()


def test_a_damaged_binary_batch_is_named(tmp_path: Path) -> None:
    path = unpacked(tmp_path, "bin") / "data_batch_3.bin"
    for content, message in (
        (binary("data_batch_3")[:-1], "is not a whole number of 3073-byte records"),
        (b"", "does not hold one label"),
        (b"\x0b" * 3073, "does not hold one label from 0 to 9"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"data_batch_3\.bin {message}"):
            Cifar10(tmp_path).open()
    path.unlink()
    with pytest.raises(UserError, match=r"lacks data_batch_3\.bin"):
        Cifar10(tmp_path).open()


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    path = archive(tmp_path, "bin")
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"not an archive", b""):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"cifar-10-binary\.tar\.gz cannot be read"):
            Cifar10(tmp_path).open()


def test_an_archive_is_read_without_being_unpacked(tmp_path: Path) -> None:
    path = archive(tmp_path, "py")
    with tarfile.open(path, "r:gz") as tar:
        members = {m.name: file.read() for m in tar if (file := tar.extractfile(m)) is not None}
    with tarfile.open(path, "w:gz") as tar:
        for name, content in {"../outside": b"x", **members}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    before = sorted(tmp_path.parent.rglob("*"))
    assert len(Cifar10(path).open().train) == 50
    assert sorted(tmp_path.parent.rglob("*")) == before


@pytest.mark.parametrize("target", ["/etc/hostname", "../../outside", "data_batch_2", "nowhere"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_in_an_archive_is_not_followed(tmp_path: Path, kind: bytes, target: str) -> None:
    path = tmp_path / "cifar-10-python.tar.gz"
    (tmp_path / "outside").write_bytes(pickled("data_batch_1"))
    with tarfile.open(path, "w:gz") as tar:
        link = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        link.type, link.linkname = kind, target
        tar.addfile(link)
        for name in NAMES[1:]:
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(pickled(name))
            tar.addfile(info, io.BytesIO(pickled(name)))
    with pytest.raises(UserError, match="lacks data_batch_1"):
        Cifar10(path).open()


def test_a_member_larger_than_any_batch_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo("data_batch_1")
        info.size = 10**8
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    with pytest.raises(UserError, match=r"data_batch_1 has 100,000,000 bytes, more than any"):
        Cifar10(path).open()


def test_nothing_there_names_the_publisher(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"www\.cs\.toronto\.edu/~kriz/cifar\.html and put it"):
        Cifar10(tmp_path).open()
