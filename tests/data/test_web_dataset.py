"""Shards: what they hold is what the folder holds, and what is wrong with one is named."""

import io
import json
import pickle
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from energydiff.data import Folder, WebDataset, shards
from energydiff.data.converting import convert
from energydiff.errors import UserError

NAMES = [
    f"{('dög v1.0', '2', '10')[i % 3]}/{i}{'.jpg' if i % 2 else '.tar.PNG'}" for i in range(40)
]
PER_SHARD = 15


@pytest.fixture
def folder(make_images: Callable[..., Path]) -> Folder:
    return Folder(make_images(NAMES, (20, 24)), image_size=8, labels=True)


@pytest.fixture
def converted(folder: Folder, tmp_path: Path) -> Path:
    convert(folder, tmp_path / "shards", PER_SHARD)
    return tmp_path / "shards"


def png(value: int = 7, size: int = 4) -> bytes:
    Image.new("RGB", (size, size), (value, 0, 255 - value)).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def tar(file: Path, members: dict[str, Any]) -> Path:
    """By name, the bytes of a member or what is special of it."""
    file.parent.mkdir(exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            else:
                for attribute, value in content.items():
                    setattr(member, attribute, value)
                archive.addfile(member)
    return file.parent


def foreign(root: Path, count: int = 20) -> Path:
    samples = {f"./a/{i:03d}.png": png(i) for i in range(count)}
    return tar(
        root / "a.tar", samples | {f"./a/{i:03d}.cls": b"%d\n" % (i % 12) for i in range(count)}
    )


@pytest.mark.parametrize(
    "options", [{}, {"channels": 1}, {"labels": False}, {"variants": r"\d+(?=\.)", "held_out": 0.4}]
)
def test_shards_are_the_folder(folder: Folder, tmp_path: Path, options: dict[str, Any]) -> None:
    """Names, sides of the split, classes, order and pixels."""
    ours = Folder(folder.root, **{"image_size": 8, "labels": True} | options)
    convert(ours, tmp_path / "shards", PER_SHARD)
    options.pop("channels", None)
    theirs = WebDataset(tmp_path / "shards", **{"labels": True} | options).open()
    for expected, found in zip(ours.open(), theirs, strict=True):
        assert len(expected) and list(found.names) == list(expected.names)
        assert (found.classes, found.shape) == (expected.classes, expected.shape)
        for (pixels, label), (again, same) in zip(expected, found, strict=True):
            assert torch.equal(pixels, again) and label == same


def test_the_library_reads_our_shards(converted: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    files = sorted(str(file) for file in converted.glob("*.tar"))
    read = webdataset.WebDataset(files, shardshuffle=False).decode("rgb8").to_tuple("png", "cls")
    found = [(image, label) for image, label in read]
    whole = [
        part[i] for part in WebDataset(converted, labels=True).open() for i in range(len(part))
    ]
    key = [(image.transpose(2, 0, 1).tobytes(), label) for image, label in found]
    assert sorted(key) == sorted((image.numpy().tobytes(), label) for image, label in whole)


def test_shards_of_the_library_are_read(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (30, 6, 5, 3), np.uint8)
    with webdataset.ShardWriter(str(tmp_path / "%04d.tar"), maxcount=12, verbose=0) as writer:
        for i, image in enumerate(pixels):
            sample = {"__key__": f"b/{i:03d}", "png": image, "cls": i % 11, "json": {"i": i}}
            writer.write(sample)
    splits = WebDataset(tmp_path, labels=True).open()
    assert sum(map(len, splits)) == 30
    for part in splits:
        assert part.classes == tuple(map(str, range(11))) and part.decoded
        for name, (sample, label) in zip(part.names, part, strict=True):
            i = int(name.removeprefix("b/"))
            assert np.array_equal(sample.permute(1, 2, 0).numpy(), pixels[i]) and label == i % 11


def test_fields_are_chosen_by_name_and_in_order(tmp_path: Path) -> None:
    samples = {
        f"{i}.{field}": png(value) for i in range(20) for field, value in (("a.png", 1), ("png", 2))
    }
    root = tar(tmp_path / "shards" / "0.tar", samples | {"README": b"x", ".hidden.png": b""})
    train, _ = WebDataset(root, image="missing;a.png;png").open()
    assert train[0][0][0, 0, 0] == 1 and WebDataset(root).open().train[0][0][0, 0, 0] == 2
    assert train.remarks == ("files in shards that are no field of a sample: 2",)
    with pytest.raises(UserError, match=r"of .*0\.tar has no tiff: set data\.source\.image"):
        WebDataset(root, image="tiff").open()


def test_what_was_verified_is_not_read_again(
    converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    headers, digest = shards._read_headers, shards.digest_file
    monkeypatch.setattr(
        shards, "_read_headers", lambda p, end: read.append(p.name) or headers(p, end)
    )
    monkeypatch.setattr(shards, "digest_file", lambda p: read.append("#" + p.name) or digest(p))
    first = WebDataset(converted).open()
    files = [f"{i:06d}.tar" for i in range(3)]
    assert sorted(read) == sorted([*files, *("#" + file for file in files)])
    read.clear()
    assert WebDataset(converted).open().train.names == first.train.names and not read
    (converted / files[1]).touch()
    WebDataset(converted).open()
    assert sorted(read) == ["#" + files[1], files[1]]


def test_a_changed_a_missing_and_another_shard_are_named(converted: Path) -> None:
    file = converted / "000001.tar"
    content = bytearray(file.read_bytes())
    content[700] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"000001\.tar is not the file that shards\.json names"):
        WebDataset(converted).open()
    file.rename(converted / "other.tar")
    with pytest.raises(UserError, match=r"000001\.tar is missing: restore"):
        WebDataset(converted).open()
    (converted / "other.tar").rename(file)
    (converted / "shards.json").unlink()  # unverified, and read in full: the pixel shows
    with pytest.raises(UserError, match=r"of .*shards cannot be read .*: repair or remove it"):
        WebDataset(converted).open()


def test_a_shard_that_changes_while_it_is_read_is_a_sentence(converted: Path) -> None:
    train, _ = WebDataset(converted).open()
    for file in converted.glob("*.tar"):
        file.write_bytes(file.read_bytes()[:700])
    with pytest.raises(UserError, match=r" of .*cannot be read \(.*tar has become shorter\)"):
        train[0]
    file.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        [train[i] for i in range(len(train))]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda whole: whole[: len(whole) // 2], r"a\.tar cannot be read as a tar file"),
        (lambda whole: whole[:700], r"a\.tar cannot be read as a tar file"),
        (lambda whole: b"", r"a\.tar cannot be read as a tar file"),
        (lambda whole: zlib.compress(whole), r"a\.tar cannot be read as a tar file.*unpack it"),
    ],
)
def test_a_damaged_shard_without_a_manifest_is_named(
    tmp_path: Path, content: Callable[[bytes], bytes], message: str
) -> None:
    root = foreign(tmp_path / "shards")
    (root / "a.tar").write_bytes(content((root / "a.tar").read_bytes()))
    with pytest.raises(UserError, match=message):
        WebDataset(root).open()


@pytest.mark.parametrize("second", ["a.tar", "b.tar"])
def test_two_samples_of_one_name_are_refused(tmp_path: Path, second: str) -> None:
    root = foreign(tmp_path / "shards")
    with tarfile.open(root / second, "a") as archive:
        member = tarfile.TarInfo("a/0%303.png")  # 003
        member.size = 3
        archive.addfile(member, io.BytesIO(b"abc"))
    with pytest.raises(UserError, match=rf"{second} holds a second sample a/003"):
        WebDataset(root).open()


def bomb() -> bytes:
    """A PNG of a few bytes whose header claims 20,000 × 20,000 pixels."""
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 60_001)), (b"IEND", b""))
    parts = [
        struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("../out.png", png(), r"'\.\./out\.png', whose name leads out of it"),
        ("a/../../out.png", png(), "whose name leads out of it"),
        ("/etc/out.png", png(), "whose name leads out of it"),
        ("a/x.png", {"type": tarfile.SYMTYPE, "linkname": "SECRET"}, "is a link or no plain file"),
        ("a/x.png", {"type": tarfile.LNKTYPE, "linkname": "a/000.png"}, "is a link or no plain"),
        ("a/x.png", {"type": tarfile.FIFOTYPE}, "is a link or no plain file"),
        ("a/x.png", {"type": tarfile.CHRTYPE}, "is a link or no plain file"),
        ("a/x.png", bomb(), r"a/x of .* cannot be read \(.*20000x20000|decompression bomb"),
    ],
)
def test_a_poisoned_member_is_refused(
    tmp_path: Path, name: str, content: Any, message: str
) -> None:
    """Neither read, nor followed, nor written anywhere."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(png())
    if isinstance(content, dict) and content.get("linkname") == "SECRET":
        content = content | {"linkname": str(secret)}
    root = foreign(tmp_path / "shards")
    tar(root / "b.tar", {name: content})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=message):
        WebDataset(root).open()
    after = [path for path in sorted(tmp_path.rglob("*")) if "cache" not in path.parts]
    assert after == [path for path in before if "cache" not in path.parts]


def test_a_member_that_claims_more_than_any_sample_is_not_read(tmp_path: Path) -> None:
    """Of a sparse file that takes no room."""
    file = tmp_path / "a.tar"
    member = tarfile.TarInfo("a.png")
    member.size = 2**31
    with file.open("wb") as shard:
        shard.write(member.tobuf())
        shard.truncate(2**31 + 10_240)
    with pytest.raises(UserError, match=r"'a\.png' of 2,147,483,648 bytes, more than any sample"):
        WebDataset(tmp_path).open()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"shards\.json is no manifest of shards"),
        ("[]", r"shards\.json is no manifest of shards"),
        (lambda c: c | {"shards": [{"file": "../x.tar", "sha256": "0"}]}, "outside the folder"),
        (lambda c: c | {"shards": c["shards"] * 2}, "or one twice"),
        (lambda c: c | {"complete": False}, r"did not come to its end: run the same"),
        (lambda c: c | {"classes": ["one"]}, r"labels of .* run from 0 to 2, but it names 1 class"),
    ],
)
def test_a_manifest_that_is_wrong_is_named(converted: Path, content: Any, message: str) -> None:
    file = converted / "shards.json"
    if not isinstance(content, str):
        content = json.dumps(content(json.loads(file.read_text())))
    file.write_text(content)
    with pytest.raises(UserError, match=message):
        WebDataset(converted, labels=True).open()


@pytest.mark.parametrize("label", [b"x" * 2000, None])
def test_a_label_that_is_none_is_named(tmp_path: Path, label: bytes | None) -> None:
    root = foreign(tmp_path / "shards")
    tar(root / "b.tar", {"b.png": png()} | ({"b.cls": label} if label else {}))
    with pytest.raises(UserError, match=r"b of .* has (no cls|a label of 2,000 bytes): set"):
        WebDataset(root, labels=True).open()
    assert WebDataset(root).open().train.classes == ()


def test_labels_of_words_are_classes(tmp_path: Path) -> None:
    samples = {f"{i}.png": png(i) for i in range(20)}
    root = tar(
        tmp_path / "s" / "0.tar",
        samples | {f"{i}.txt": b"cat dog".split()[i % 2] for i in range(20)},
    )
    train, _ = WebDataset(root, labels=True, label="txt").open()
    assert train.classes == ("cat", "dog")
    assert all(label == int(name) % 2 for name, (_, label) in zip(train.names, train, strict=True))


def test_what_is_no_folder_of_shards_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no \.tar files: set data\.source\.root"):
        WebDataset(tmp_path).open()
    with pytest.raises(UserError, match=r"does not exist: set data\.source\.root"):
        WebDataset(tmp_path / "nowhere").open()
    foreign(tmp_path / "shards")
    assert sum(map(len, WebDataset(tmp_path / "shards" / "a.tar").open())) == 20


def test_another_process_can_be_handed_it(converted: Path) -> None:
    """Where processes are not forked, sources are pickled."""
    train, _ = WebDataset(converted, labels=True).open()
    again = pickle.loads(pickle.dumps(train))
    assert torch.equal(again[3][0], train[3][0]) and again[3][1] == train[3][1]
