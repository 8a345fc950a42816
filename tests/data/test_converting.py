"""A folder becomes shards: to the same bytes however often it is interrupted."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from energydiff.data import Folder, WebDataset, converting
from energydiff.data.converting import convert
from energydiff.errors import UserError

NAMES = [f"{'ab'[i % 2]}/{i}.png" for i in range(50)]


@pytest.fixture
def folder(make_images: Callable[..., Path]) -> Folder:
    return Folder(make_images(NAMES), image_size=8, labels=True)


def contents(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in out.iterdir()}


@pytest.fixture
def expected(folder: Folder, tmp_path: Path) -> dict[str, bytes]:
    assert len(convert(folder, tmp_path / "expected", per_shard=12)) == 50
    found = contents(tmp_path / "expected")
    assert sorted(found) == [*(f"{i:06d}.tar" for i in range(5)), "shards.json"]
    return found


def test_the_bytes_do_not_depend_on_the_processes(
    folder: Folder, expected: dict[str, bytes], tmp_path: Path
) -> None:
    convert(folder, tmp_path / "out", per_shard=12, workers=2)
    assert contents(tmp_path / "out") == expected


def stuck(folder: Folder, out: Path) -> None:
    """Two shards, half of a third, and no end."""
    add, added = converting._add, count()
    converting._add = lambda *given: add(*given) if next(added) < 30 else time.sleep(600)
    convert(folder, out, per_shard=12)


def test_a_killed_conversion_goes_on_to_the_same_bytes(
    folder: Folder, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    process = multiprocessing.get_context("fork").Process(target=stuck, args=(folder, out))
    process.start()
    try:
        while not ((out / "000001.tar").exists() and list(out.glob("*.partial"))):
            assert process.is_alive()
            time.sleep(0.005)
    finally:
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
    left = contents(out)
    assert "000002.tar" not in left and not json.loads(left["shards.json"])["complete"]
    with pytest.raises(UserError, match="did not come to its end"):
        WebDataset(out).open()
    kept = (out / "000000.tar").stat().st_mtime_ns
    added, add = [], converting._add
    monkeypatch.setattr(converting, "_add", lambda *given: (added.append(1), add(*given)))
    convert(folder, out, per_shard=12)
    assert contents(out) == expected
    assert kept == (out / "000000.tar").stat().st_mtime_ns and len(added) <= 38
    added.clear()
    convert(folder, out, per_shard=12)
    assert contents(out) == expected and not added


def test_a_finished_shard_that_was_damaged_is_made_anew(
    folder: Folder, expected: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "expected"
    (out / "000002.tar").write_bytes(b"no shard")
    (out / "000003.tar").unlink()
    convert(folder, out, per_shard=12)
    assert contents(out) == expected


def test_other_shards_are_not_mixed_in(
    folder: Folder, expected: dict[str, bytes], tmp_path: Path, make_images: Callable[..., Path]
) -> None:
    out = tmp_path / "expected"
    with pytest.raises(UserError, match=r"made by other image_size: choose another --out"):
        convert(replace(folder, image_size=6), out, per_shard=12)
    with pytest.raises(UserError, match="made by other per_shard"):
        convert(folder, out, per_shard=11)
    make_images(["a/new.png"])
    with pytest.raises(UserError, match="made by other images"):
        convert(folder, out, per_shard=12)
    assert contents(out) == expected
    (out / "shards.json").unlink()
    with pytest.raises(UserError, match=r"holds other \.tar files: choose another --out"):
        convert(folder, out, per_shard=12)
    with pytest.raises(UserError, match="per_shard is 0"):
        convert(folder, tmp_path / "none", per_shard=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_breaks_meanwhile_ends_it(
    folder: Folder, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where broken ones are skipped: another in its place would be there twice."""
    skipping = replace(folder, on_error="skip", max_skipped=0.5)
    (Path(folder.root) / "a" / "0.png").write_bytes(b"broken before")
    whole = Folder.whole

    def then_break(self: Folder, measured: bool = False) -> object:
        source = whole(self, measured)
        (Path(folder.root) / "b" / "1.png").write_bytes(b"broken later")
        return source

    monkeypatch.setattr(Folder, "whole", then_break)
    with (
        pytest.warns(UserWarning, match="Left out 1 of 50"),
        pytest.raises(UserError, match=r"b/1\.png could be read before but not now"),
    ):
        convert(skipping, tmp_path / "out", per_shard=50, workers=workers)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["shards.json"]


def test_images_left_out_are_in_no_shard(folder: Folder, tmp_path: Path) -> None:
    (Path(folder.root) / "a" / "0.png").write_bytes(b"broken")
    skipping = replace(folder, on_error="skip", max_skipped=0.5)
    with pytest.warns(UserWarning, match="Left out 1 of 50"):
        assert len(convert(skipping, tmp_path / "out")) == 49
    names = [name for part in WebDataset(tmp_path / "out").open() for name in part.names]
    assert sorted(names) == sorted(set(NAMES) - {"a/0.png"})
