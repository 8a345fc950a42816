"""Files that are written whole or not at all."""

import json
import math
from pathlib import Path

import pytest

from energydiff.errors import UserError
from energydiff.files import digest_file, whole, write_json, write_whole


def test_a_file_and_its_folder_are_made_and_replaced(tmp_path: Path) -> None:
    file = tmp_path / "new" / "file.bin"
    for content in (b"first", b"second, longer"):
        write_whole(file, content)
        assert file.read_bytes() == content
    assert [p.name for p in file.parent.iterdir()] == ["file.bin"]


def test_a_writer_that_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "file.bin"
    write_whole(file, b"old")
    with pytest.raises(KeyboardInterrupt), whole(file) as partial:
        partial.write_bytes(b"ne")
        raise KeyboardInterrupt
    assert file.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]


def test_others_may_read_what_they_may_read_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    write_whole(tmp_path / "whole", b"")
    modes = [(tmp_path / name).stat().st_mode for name in ("plain", "whole")]
    assert modes[0] == modes[1]


def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file.bin"
    write_whole(file, b"old")

    def full(partial: Path, target: Path) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UserError, match=r"file\.bin cannot be written \(no space"):
        write_whole(file, b"new")
    assert file.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]


def test_what_is_not_finite_is_null_at_any_depth(tmp_path: Path) -> None:
    content = {"a": math.nan, "b": [{"c": math.inf}, (-math.inf, 1.5)], "d": "NaN", "e": [True, 2]}
    write_json(tmp_path / "new" / "a.json", content)
    text = (tmp_path / "new" / "a.json").read_text()
    expected = {"a": None, "b": [{"c": None}, [None, 1.5]], "d": "NaN", "e": [True, 2]}
    assert json.loads(text) == expected and text.endswith("}\n")


def test_what_is_no_json_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}


def test_the_digest_is_sha_256(tmp_path: Path) -> None:
    write_whole(tmp_path / "abc", b"abc")
    assert digest_file(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223")
