"""What a study of memorising is told to have found, and that all of it is drawn."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from energydiff.report.memorisation import write_study
from energydiff.report.memorisation.exemplars import chosen_sizes
from energydiff.report.memorisation.findings import findings
from energydiff.report.memorisation.numbers import duration, share_limits
from energydiff.report.memorisation.rows import means

Make = Callable[..., dict[str, Any]]
FIGURES = {"shares", "exemplars", "states", "rests", "times", "fates", "halves"}
FEW = {"sizes": (16, 256), "seeds": (0, 1), "halves": (), "features": ()}


@pytest.fixture(scope="module")
def whole(make_study: Make, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A study of eight sizes and three seeds of images, written."""
    folder = tmp_path_factory.mktemp("study")
    return folder, write_study(make_study(folder, shape=(1, 8, 8)), folder)


def said(record: dict[str, Any]) -> str:
    return " ".join(" ".join(part) for part in findings(record)).replace("\xa0", " ")


def text_of(folder: Path) -> str:
    return (folder / "memorisation.html").read_text()


def drawn(folder: Path) -> set[str]:
    return {file.stem for file in folder.glob("*.png")}


def test_everything_is_drawn_and_the_page_says_what_was_found(
    whole: tuple[Path, list[str]],
) -> None:
    folder, sentences = whole
    assert drawn(folder) == FIGURES
    for file in folder.glob("*.png"):
        with Image.open(file) as picture:
            assert picture.width > 900
    page = re.sub("</?sub>", lambda tag: "_" if tag[0] == "<sub>" else "", text_of(folder))
    assert page.count("data:image/png;base64,") == len(FIGURES)
    for sentence in sentences[:-1]:
        assert sentence in page
    assert str(folder / "memorisation.html") in sentences[-1]


def test_the_page_needs_nothing_else(whole: tuple[Path, list[str]]) -> None:
    page = text_of(whole[0])
    assert not re.search(r"https?:|<script|<link|src=\"(?!data:)|url\(", page)


def test_the_page_tells_the_rule_and_the_settings(whole: tuple[Path, list[str]]) -> None:
    page = text_of(whole[0]).replace("\xa0", " ")
    for told in (
        "Thresholds, which 1 % of held-out images are below",
        "Of 1,499 training images 2 equal another, and 3 pairs of the others are nearer than δ_m.",
        "--config digits.yaml",
        "1.50 hours",
        "d₁/d₂ &lt; 1/3",
        "becomes a valley",
        "certified minima",
    ):
        assert told in page, told


def test_a_clear_peak_is_above_the_control(make_study: Make, tmp_path: Path) -> None:
    text = said(make_study(tmp_path))
    assert "falls from 99.3 % at K = 4 training images to 0.9 % at K = 1,024" in text
    assert re.search(r"crosses half at K_c = 70.5 \(95 % interval \S+ to \S+, of each seed", text)
    assert "at K = 64: 14.9 percentage points more" in text
    assert "above the control by either interval" in text
    assert "images seen for each training image" in text and "a free exponent of K" in text
    assert "133 of 152 spurious samples" in text
    assert "of the 133 of spurious samples 95 are further" in text
    assert "12 of 12 images have a minimum to themselves at K = 4" in text


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"peak": 0.02}, "not shown to be above the control"),
        ({"peak": -0.005, "noise": 0.0}, "At no size are more samples spurious"),
        ({"peak": 0.05}, "but not shown to be once the interval is widened"),
        ({"seeds": (0,)}, "in a single seed, so there is no interval"),
        ({"seeds": (0,)}, ", of a single seed."),
        ({"middle": 1e-3}, "is nowhere above half, so there is no K_c"),
        ({"middle": 1e9}, "stays above half at every size"),
        ({"middle": 1e-3}, "In no training does the memorised share reach 10 %"),
        ({"energies": False}, "no energy, so there are no states"),
        ({"sizes": (64, 1024)}, "at too few sizes to say"),
    ],
)
def test_what_was_not_found_is_told_too(
    make_study: Make, tmp_path: Path, settings: dict[str, Any], told: str
) -> None:
    assert told in said(make_study(tmp_path, **settings))


def test_seeds_that_never_cross_are_counted(make_study: Make, tmp_path: Path) -> None:
    record = make_study(tmp_path)
    record["summary"]["pixels"]["crossing"]["of_seeds"][1] = None
    assert "of 2 of 3 seeds: in the others it never does" in said(record)


def test_a_study_of_vectors_without_energies_halves_and_looks(
    make_study: Make, tmp_path: Path
) -> None:
    record = make_study(tmp_path, energies=False, watched=False, **FEW)
    (tmp_path / "states.png").touch()  # of an earlier study
    write_study(record, tmp_path)
    assert drawn(tmp_path) == {"shares"}
    page = text_of(tmp_path)
    for told in (
        "The samples are not images",
        "The trainings were not watched",
        "The models have no energy",
        "No models of disjoint halves were trained",
    ):
        assert told in page


def test_one_size_and_one_seed_are_drawn(make_study: Make, tmp_path: Path) -> None:
    record = make_study(tmp_path, **FEW | {"sizes": (16,), "seeds": (0,), "halves": (16,)})
    write_study(record, tmp_path)
    assert drawn(tmp_path) == {"shares", "states", "rests", "times", "halves"}
    assert "not finite" not in text_of(tmp_path)


def test_sizes_with_every_phase_come_first() -> None:
    phases = {4: 1, 16: 2, 32: 3, 64: 3, 128: 3, 256: 3, 512: 2, 1024: 1}
    assert chosen_sizes(phases) == [4, 64, 128, 1024]
    assert chosen_sizes({4: 1, 16: 3}) == [4, 16]
    assert chosen_sizes({4: 1}) == [4]


def test_numbers_read_as_they_should() -> None:
    assert share_limits({"mean": 0.99, "low": 0.93, "high": 1.05}) == "99.0 (93.0 to 100.0)"
    assert share_limits({"mean": 0.99, "low": None, "high": None}) == "99.0"
    assert [duration(s) for s in (12, 120, 7200, 3 * 86400)] == [
        *("12 seconds", "2.0 minutes", "2.00 hours", "3.00 days")
    ]
    assert means([[1.0, None, None], [3.0, 2.0, None]]).tolist()[:2] == [2.0, 2.0]
