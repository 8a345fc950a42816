import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from energydiff.data import Folder, checks
from energydiff.data.remembered import default_cache_dir
from energydiff.errors import UserError
from energydiff.progress import with_progress

NAMES = [f"{i:03d}.png" for i in range(20)]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that checks decode, as they do."""
    names: list[str] = []
    decode = checks.decode_image

    def counted(path: Path, **options: Any) -> Any:
        names.append(path.name)
        return decode(path, **options)

    monkeypatch.setattr(checks, "decode_image", counted)
    return names


def test_every_file_is_decoded_once(make_images: Callable[..., Path], decoded: list[str]) -> None:
    root = make_images(NAMES)
    first = Folder(root).open()
    assert sorted(decoded) == sorted(NAMES)
    decoded.clear()
    again = Folder(root).open()
    Folder(root, image_size=4, channels=1, workers=1).open()
    assert decoded == []
    assert again.train.names == first.train.names
    assert again.train.shape == first.train.shape


def test_new_and_changed_files_are_decoded_again(
    make_images: Callable[..., Path], decoded: list[str]
) -> None:
    root = make_images(NAMES)
    Folder(root).open()
    decoded.clear()
    make_images(["new.png"])
    os.utime(root / "003.png", ns=(1, 1))
    (root / "005.png").unlink()
    Folder(root).open()
    assert sorted(decoded) == ["003.png", "new.png"]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"reader": "other", "files": {}}', "null", "files"]
)
def test_a_damaged_or_foreign_cache_is_ignored(
    make_images: Callable[..., Path], decoded: list[str], own_cache: Path, content: str
) -> None:
    root = make_images(NAMES)
    Folder(root).open()
    (cache,) = own_cache.iterdir()
    if content == "files":
        content = json.dumps({"reader": checks.READER, "files": {"000.png": [1]}})
    cache.write_text(content)
    decoded.clear()
    Folder(root).open()
    assert len(decoded) == len(NAMES)
    assert [path.name for path in own_cache.iterdir()] == [cache.name]
    assert len(json.loads(cache.read_text())["files"]) == len(NAMES)


def test_a_cache_that_cannot_be_written_is_a_warning(
    make_images: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="The check .* is not remembered.*ENERGYDIFF_CACHE"):
        train, _ = Folder(make_images(NAMES), cache_dir=tmp_path / "file" / "x").open()
    assert train[0][0].shape == (3, 10, 12)


def test_an_interrupted_check_goes_on_where_it_stopped(
    make_images: Callable[..., Path], decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(items: Any, *_: Any) -> Any:
        for i, item in enumerate(list(items)):  # no thread decodes on
            if i == 15:
                raise KeyboardInterrupt
            yield item

    root = make_images(NAMES)
    for left in (5, 0):  # what is known is not lost to a second interruption
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(checks, "with_progress", interrupted)
            Folder(root).open()
        decoded.clear()
        Folder(root).open()
        assert len(decoded) == left


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert default_cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("ENERGYDIFF_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "energydiff"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache" / "energydiff"


def broken_folder(make_images: Callable[..., Path]) -> Path:
    root = make_images([*NAMES, "sub/truncated.png"])
    content = (root / "sub/truncated.png").read_bytes()
    (root / "sub/truncated.png").write_bytes(content[: len(content) // 2])
    return root


def test_a_broken_image_fails_with_its_path_and_reason(make_images: Callable[..., Path]) -> None:
    root = broken_folder(make_images)
    with pytest.raises(UserError, match=r"sub/truncated\.png cannot be read \(.*truncated.*\): re"):
        Folder(root).open()
    for i in range(14):
        (root / f"x{i:02d}.png").write_bytes(b"")
    message = r"truncated\.png cannot .*, \S*x08\.png cannot be read \(.*\), and 5 more: repair"
    with pytest.raises(UserError, match=message) as refused:
        Folder(root).open()
    assert "x09" not in str(refused.value)


def test_a_broken_image_can_be_skipped(
    make_images: Callable[..., Path], decoded: list[str]
) -> None:
    root = broken_folder(make_images)
    for _ in range(2):  # told again when all else is remembered
        with pytest.warns(UserWarning, match=r"Left out 1 of 21 (.|\n)*sub/truncated\.png cannot "):
            splits = Folder(root, on_error="skip", max_skipped=0.05).open()
        assert sorted(name for part in splits for name in part.names) == sorted(NAMES)
    assert len(decoded) == 22


def test_a_repaired_image_is_taken_back(make_images: Callable[..., Path]) -> None:
    root = broken_folder(make_images)
    with pytest.raises(UserError):
        Folder(root).open()
    make_images(["sub/truncated.png"])
    assert sum(map(len, Folder(root).open())) == 21


def test_only_a_small_share_may_be_skipped(make_images: Callable[..., Path]) -> None:
    root = broken_folder(make_images)
    message = r"of the 21 images in .*, 1 \(4\.76%\) .* more than data\.source\.max_skipped = 0\.1"
    with pytest.raises(UserError, match=message):
        Folder(root, on_error="skip").open()
    with pytest.raises(UserError, match=r"0\.10%: .*sub/truncated\.png cannot be read \("):
        Folder(root, on_error="skip").open()


def write_range(root: Path, dtype: Any, *ranges: tuple[int, int], start: int = 0) -> Path:
    """One grey image for each range of values, lowest and highest included."""
    root.mkdir(exist_ok=True)
    for i, (low, high) in enumerate(ranges, start):
        values = np.linspace(low, high, 120).round().astype(dtype).reshape(10, 12)
        Image.fromarray(values).save(root / f"{i:03d}.png")
    return root


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        (np.uint8, 0, 0),  # blank
        (np.uint8, 0, 1),  # a mask
        (np.uint8, 0, 20),  # numbers of classes
        (np.uint16, 0, 1),
        (np.uint16, 0, 255),
        (np.uint16, 0, 1023),
        (np.uint16, 0, 4095),
        (np.uint16, 0, 16383),
        (np.uint16, 32768 - 1024, 32768 + 3071),  # Hounsfield units
    ],
)
def test_a_folder_whose_images_are_faint_all_together_is_refused(
    tmp_path: Path, dtype: Any, low: int, high: int
) -> None:
    root = write_range(tmp_path / "images", dtype, *[(low, high)] * 20)
    scale = 255 if dtype == np.uint8 else 65535
    levels = f"{round(255 * low / scale)} to {round(255 * high / scale)}"
    for _ in range(2):  # told again when all is remembered
        with pytest.raises(UserError, match=f"images use only the levels {levels} of 0 to 255, al"):
            Folder(root).open()


def test_a_dark_photograph_among_others_is_warned_of_by_name_and_kept(
    make_images: Callable[..., Path], decoded: list[str]
) -> None:
    root = write_range(make_images(NAMES), np.uint16, (0, 1023), (0, 60_000), start=100)
    message = (
        r"^1 of the 22 images in .* nearly, all within 16 of 255 levels; the first is 100\.png"
    )
    for _ in range(2):
        with pytest.warns(UserWarning, match=message):
            assert sum(map(len, Folder(root).open())) == 22
    assert len(decoded) == 22


def test_dark_images_that_together_fill_the_range_pass_in_silence(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    ranges = [(20 * i % 200, 20 * i % 200 + 40) for i in range(20)]
    Folder(write_range(tmp_path / "images", np.uint8, *ranges)).open()
    assert not recwarn.list


def test_white_on_transparent_ground_is_refused_until_the_background_is_another(
    tmp_path: Path, decoded: list[str]
) -> None:
    root = tmp_path / "images"
    root.mkdir()
    alpha = np.linspace(0, 255, 120).round().astype(np.uint8).reshape(10, 12)
    for name in NAMES:
        Image.fromarray(np.dstack([np.full_like(alpha, 255)] * 3 + [alpha])).save(root / name)
    with pytest.raises(UserError, match=r"levels 255 to 255 .* choose another background"):
        Folder(root, channels=1).open()
    for _ in range(2):  # what was seen over white is not taken for it
        source = Folder(root, channels=1, background="black").whole()
    assert np.array_equal(source[0][0][0], alpha)
    assert len(decoded) == 40


def test_progress_is_quiet_when_short_and_told_when_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(with_progress(range(5), 5, "Checking")) == list(range(5))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("energydiff.progress.LINE_SECONDS", 0)
    assert list(with_progress(range(3), 3, "Checking")) == list(range(3))
    assert capsys.readouterr().err.splitlines()[-1] == "Checking: 3 of 3"


def test_a_terminal_gets_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("energydiff.progress.BAR_SECONDS", 0)
    assert list(with_progress(range(3), 3, "Checking")) == list(range(3))
    assert "3/3" in capsys.readouterr().err
