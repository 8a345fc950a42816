import io
import pickle
import resource
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from energydiff.data import Arrays
from energydiff.errors import UserError

RANDOM = np.random.default_rng(0)


def save(path: Path, values: Any, **others: Any) -> Path:
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        np.savez(path, x=values, **others)
    return path


def test_bytes_keep_their_type_and_range(tmp_path: Path) -> None:
    values = RANDOM.integers(0, 200, (40, 6, 5), dtype=np.uint8)
    train, held_out = Arrays(save(tmp_path / "a.npy", values)).open()
    assert train.shape == (1, 6, 5)
    assert (train.normalization.low, train.normalization.high) == (0, 255)
    for part in (train, held_out):
        for name, (sample, label) in zip(part.names, part, strict=True):
            assert sample.dtype == torch.uint8
            assert np.array_equal(sample[0].numpy(), values[int(name)])
            assert label == -1


def test_floats_take_the_range_of_the_training_part(tmp_path: Path) -> None:
    values = RANDOM.normal(size=(50, 3))
    root = save(tmp_path / "a.npz", values)
    train, held_out = Arrays(root).open()
    values[int(held_out.names[0])] = 99
    save(root, values)
    again, _ = Arrays(root).open()
    assert again.normalization == train.normalization
    raw = torch.stack([sample for sample, _ in train])
    assert raw.dtype == torch.float32
    x = train.normalization.encode(raw)
    torch.testing.assert_close(torch.stack([x.min(), x.max()]), torch.tensor([-1.0, 1.0]))


def test_a_given_range_is_taken(tmp_path: Path) -> None:
    root = save(tmp_path / "a.npy", RANDOM.normal(size=(50, 3)))
    train, _ = Arrays(root, value_range=(-4, 8)).open()
    assert (train.normalization.low, train.normalization.high) == (-4, 8)


@pytest.mark.parametrize(
    ("saved", "shape"),
    [
        ((20, 7), (7,)),
        ((20, 7, 5), (1, 7, 5)),
        ((20, 7, 5, 3), (3, 7, 5)),
        ((20, 7, 5, 1), (1, 7, 5)),
        ((20, 3, 7, 5), (3, 7, 5)),
        ((20, 1, 7, 5), (1, 7, 5)),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_axes(tmp_path: Path, saved: tuple[int, ...], shape: tuple[int, ...], suffix: str) -> None:
    values = RANDOM.normal(size=saved).astype(np.float32)
    train, _ = Arrays(save(tmp_path / f"a{suffix}", values)).open()
    assert train.shape == train[0][0].shape == shape
    sample = values[int(train.names[0])]
    if sample.ndim == 3 and sample.shape != shape:
        sample = sample.transpose(2, 0, 1)
    assert np.array_equal(train[0][0].numpy(), sample.reshape(shape))


@pytest.mark.parametrize(
    "shape", [(8, 8, 4), (8, 9, 2), (4, 8, 8), (2, 8, 9), (3, 7, 3), (1, 5, 3), (4, 4, 4)]
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_axes_that_can_be_read_in_two_ways_need_to_be_told(
    tmp_path: Path, shape: tuple[int, ...], suffix: str
) -> None:
    values = RANDOM.integers(0, 256, (20, *shape), np.uint8)
    root = save(tmp_path / f"a{suffix}", values)
    with pytest.raises(UserError) as refused:
        Arrays(root).open()
    assert str(refused.value) == (
        f"{root} holds samples of shape {shape}, whose channels may be the first axis or the last:"
        " set data.source.layout to CHW or HWC."
    )
    train, _ = Arrays(root, layout="CHW").open()
    assert np.array_equal(train[0][0].numpy(), values[int(train.names[0])])
    train, _ = Arrays(root, layout="HWC").open()
    seen = pickle.loads(pickle.dumps(train))[0][0].permute(1, 2, 0)
    assert np.array_equal(seen.numpy(), values[int(train.names[0])])
    assert train.shape == (shape[2], *shape[:2])


def test_a_layout_overrules_and_is_for_three_axes(tmp_path: Path) -> None:
    root = save(tmp_path / "a.npy", RANDOM.normal(size=(20, 5, 7, 3)))
    assert Arrays(root, layout="CHW").open().train.shape == (5, 7, 3)
    root = save(tmp_path / "a.npy", RANDOM.normal(size=(20, 5, 7)))
    with pytest.raises(UserError, match=r"of shape \(5, 7\), and data\.source\.layout is for thr"):
        Arrays(root, layout="CHW").open()


def test_labels_become_class_indices(tmp_path: Path) -> None:
    labels = np.tile([7, -2, 30], 20)
    root = save(tmp_path / "a.npz", RANDOM.normal(size=(60, 2)), labels=labels)
    train, _ = Arrays(root, labels=True).open()
    assert train.classes == ("-2", "7", "30")
    assert all(
        train.classes[label] == str(labels[int(name)])
        for name, (_, label) in zip(train.names, train, strict=True)
    )


@pytest.mark.parametrize("keys", [("images", "y"), ("data", "labels")])
def test_keys(tmp_path: Path, keys: tuple[str, str]) -> None:
    values = RANDOM.normal(size=(30, 2))
    np.savez(tmp_path / "a.npz", **{keys[1]: np.zeros(30, int), keys[0]: values})
    train, _ = Arrays(tmp_path / "a.npz", labels=True).open()
    assert train.classes == ("0",)
    assert np.array_equal(train[0][0].numpy(), values[int(train.names[0])].astype(np.float32))


def test_unknown_keys_are_named_until_one_is_chosen(tmp_path: Path) -> None:
    root = tmp_path / "a.npz"
    latents = RANDOM.normal(size=(30, 2))
    np.savez(root, mask=np.zeros((30, 5)), latents=latents, y=np.zeros(30, int))
    with pytest.raises(
        UserError,
        match=r"a\.npz holds mask, latents, y and nothing under x, images, data: set data\.sou",
    ):
        Arrays(root).open()
    with pytest.raises(UserError, match=r"holds mask, latents, y and nothing under z: set data\."):
        Arrays(root, key="z").open()
    train, _ = Arrays(root, key="latents", labels=True).open()
    assert np.array_equal(train[0][0].numpy(), latents[int(train.names[0])].astype(np.float32))
    assert train.classes == ("0",)


def test_a_chosen_key_comes_before_the_known_ones(tmp_path: Path) -> None:
    root = save(tmp_path / "a.npz", np.zeros((30, 2)), y=RANDOM.normal(size=(30, 5)))
    assert Arrays(root, key="y").open().train.shape == (5,)
    with pytest.raises(UserError, match="holds no labels"):
        Arrays(root, key="y", labels=True).open()


def test_a_key_is_for_an_archive(tmp_path: Path) -> None:
    root = save(tmp_path / "a.npy", RANDOM.normal(size=(20, 5)))
    with pytest.raises(UserError, match=r"data\.source\.key is for an \.npz, and .*a\.npy is one"):
        Arrays(root, key="x").open()


def test_a_mapped_file_is_pickled_by_its_path(tmp_path: Path) -> None:
    values = RANDOM.integers(0, 256, (30, 64, 64, 3), dtype=np.uint8)
    train, _ = Arrays(save(tmp_path / "a.npy", values)).open()
    pickled = pickle.dumps(train)
    assert len(pickled) < values.nbytes / 20
    assert torch.equal(pickle.loads(pickled)[3][0], train[3][0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_the_first_sample_that_is_not_finite_is_named(
    tmp_path: Path, bad: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("energydiff.data.scan.SCAN_BYTES", 200)  # several chunks
    values = RANDOM.normal(size=(40, 3))
    values[[17, 30], 1] = bad
    with pytest.raises(UserError, match=r"a\.npy: sample 17 holds a value that is not finite"):
        Arrays(save(tmp_path / "a.npy", values)).open()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((1, 3)), r"holds 1 sample\(s\): at least 2"),
        (np.zeros((0, 3)), r"holds 0 sample\(s\): at least 2"),
        (np.zeros(5), r"shape \(5,\): save \(N, d\)"),
        (np.zeros((5, 0)), r"shape \(5, 0\)"),
        (np.zeros((5, 1, 1, 1, 1)), r"shape \(5, 1, 1, 1, 1\)"),
        (np.zeros((5, 2), complex), "type complex128: save real numbers"),
        (np.array([["a"], ["b"]]), "type <U1: save real numbers"),
        (np.array([[{}], [None]]), "cannot be read as an array of numbers"),
        (np.full((40, 2), 3.0), r"every training value is 3, .* set data\.source\.value_range"),
        (np.arange(4.0).reshape(2, 2), "none of its 2 samples"),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays_that_are_refused(tmp_path: Path, values: Any, message: str, suffix: str) -> None:
    root = save(tmp_path / f"a{suffix}", values)
    with pytest.raises(UserError, match=rf"a{suffix}.*{message}"):
        Arrays(root, held_out=1e-3 if len(values) == 2 else 1 / 6).open()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "holds no labels"),
        (np.zeros(39, int), r"labels of shape \(39,\)"),
        (np.zeros(40), "type float64: save one integer or name for each of its 40"),
    ],
)
def test_labels_that_are_refused(tmp_path: Path, labels: Any, message: str) -> None:
    others = {} if labels is None else {"y": labels}
    root = save(tmp_path / "a.npz", RANDOM.normal(size=(40, 2)), **others)
    with pytest.raises(UserError, match=rf"a\.npz.*{message}"):
        Arrays(root, labels=True).open()


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_damaged_file_is_named(tmp_path: Path, suffix: str) -> None:
    root = save(tmp_path / f"a{suffix}", RANDOM.normal(size=(40, 20)))
    whole = root.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not an array"):
        root.write_bytes(content)
        with pytest.raises(UserError, match=rf"a{suffix} cannot be read"):
            Arrays(root).open()


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("count", [10**12, 10**10])
def test_a_header_that_claims_more_than_there_is_costs_nothing(
    tmp_path: Path, suffix: str, count: int
) -> None:
    header, path = io.BytesIO(), tmp_path / f"a{suffix}"
    claim = {"descr": "<f4", "fortran_order": False, "shape": (count, 4)}
    np.lib.format.write_array_header_1_0(header, claim)
    path.write_bytes(header.getvalue() + bytes(64))
    if suffix == ".npz":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", header.getvalue() + bytes(64))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=rf"a{suffix} cannot be read as an array of numbers"):
        Arrays(path).open()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**16  # KiB


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_pickled_objects_are_not_unpickled(tmp_path: Path, suffix: str) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return Path.mkdir, (tmp_path / "mark",)

    values, path = np.array([Payload(), Payload()], dtype=object), tmp_path / f"a{suffix}"
    np.save(path, values) if suffix == ".npy" else np.savez(path, x=values)
    with pytest.raises(UserError, match=rf"a{suffix} cannot be read as an array of numbers"):
        Arrays(path).open()
    assert not (tmp_path / "mark").exists()


def test_an_archive_without_samples_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", y=np.zeros(3))
    with pytest.raises(UserError, match=r"a\.npz holds no array of samples"):
        Arrays(tmp_path / "a.npz").open()


def test_only_array_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1 2")
    for root in (tmp_path, tmp_path / "a.txt"):
        with pytest.raises(UserError, match=r"is not a \.npy or \.npz file"):
            Arrays(root).open()


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_channels_are_standardised_by_the_training_part(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("energydiff.data.scan.SCAN_BYTES", 2_000)  # several parts
    values = RANDOM.normal(size=(60, 4, 3, 5)).astype(np.float32)
    values = values * np.array([1, 2, 3, 0.01])[:, None, None] + [[[0]], [[9]], [[1e3]], [[1e3]]]
    root = save(tmp_path / f"a{suffix}", values.astype(np.float32))
    train, held_out = Arrays(root, layout="CHW", standardize=True).open()
    part = values.astype(np.float32)[list(map(int, train.names))].astype(np.float64)
    mean, std = train.normalization.moments
    np.testing.assert_allclose(mean, part.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, part.std((0, 2, 3)), rtol=1e-9)
    assert held_out.normalization == train.normalization
    given = Arrays(root, layout="CHW", standardize=[[0, 0, 0, 0], [1, 2, 3, 4]]).open().train
    assert given.normalization.moments == ((0, 0, 0, 0), (1, 2, 3, 4))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (RANDOM.normal(size=(40, 3)), "holds vectors, and data.source.standardize is for channels"),
        (RANDOM.normal(size=(40, 2, 3, 3)) * [[[0]], [[1]]], "no channel that is constant"),
    ],
)
def test_what_cannot_be_standardised_is_refused(tmp_path: Path, values: Any, message: str) -> None:
    layout = "CHW" if values.ndim == 4 else None
    with pytest.raises(UserError, match=message):
        Arrays(save(tmp_path / "a.npy", values), layout=layout, standardize=True).open()


def test_labels_lie_beside_a_mapped_file_by_number_or_name(tmp_path: Path) -> None:
    names = np.tile(["cat", "dog"], 20)
    root = save(tmp_path / "a.npy", RANDOM.normal(size=(40, 2)))
    with pytest.raises(UserError, match="holds no labels"):
        Arrays(root, labels=True).open()
    np.save(tmp_path / "a.labels.npy", names)
    train, _ = Arrays(root, labels=True).open()
    assert train.classes == ("cat", "dog")
    assert all(
        train.classes[label] == names[int(name)]
        for name, (_, label) in zip(train.names, train, strict=True)
    )
