"""What the page says: numbers and intervals, what controls found, and a run's metrics."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from energydiff.errors import UserError
from energydiff.evaluation.logged import read_metrics
from energydiff.evaluation.records import Controls, Floor, Interval
from energydiff.numerals import fixed, number
from energydiff.report.words import interval, numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (8.2431, "8.24"),
        (-0.8081, "−0.808"),
        (190_000, "190,000"),
        (0.000412, "0.000412"),
        (1.7e-7, "1.7·10⁻⁷"),
        (3.02e9, "3.0·10⁹"),
        (9.999, "10.00"),
        (None, "–"),
        (math.nan, "not finite"),
        (-math.inf, "not finite"),
    ],
)
def test_numbers_to_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_numbers_of_a_row_share_their_decimals_unless_sizes_differ_too_much() -> None:
    assert numbers(37.0, 75.11) == ["37.0", "75.1"]
    assert numbers(9.05, 12.341) == ["9.05", "12.34"]
    assert numbers(1.7e-7, 0.231) == ["1.7·10⁻⁷", "0.231"]
    assert numbers(1.5, None) == ["1.50", "–"]


def test_zero_has_no_sign() -> None:
    assert fixed(-0.001, 2) == "0.00"


def test_interval_shows_two_digits_of_its_width() -> None:
    assert interval(Interval(-0.8081, -1.1402, -0.4761)) == ("−0.81", "−1.14 to −0.48")
    assert interval(Interval(2e-5, -1e-5, 5e-5)) == ("0.000020", "−0.000010 to 0.000050")
    assert interval(Interval(1.0, -math.inf, math.inf))[1] == "not finite to not finite"


def test_controls_that_fail_are_named() -> None:
    good = Controls(Interval(0, -1, 1), Interval(3, 2, 4), "blur", Floor(10, 1.0, 1.2))
    assert good.failures() == []
    bad = replace(good, same=Interval(2, 1, 3), degraded=Interval(0, -1, 1))
    assert [s.split()[0:2] for s in bad.failures()] == [["A", "differs"], ["The", "known"]]
    assert "was not seen" in bad.failures()[1]


def test_a_degradation_that_is_an_improvement_was_seen() -> None:
    noisy = Controls(Interval(0, -1, 1), Interval(-203, -294, -113), "blur", Floor(10, 1.0, 1.2))
    (told,) = noisy.failures()
    assert "(blur) lowered the distance (-203 [-294, -113])" in told and "too noisy" in told
    assert "not seen" not in told


def write_run(folder: Path, *starts: str) -> Path:
    for i, text in enumerate(starts):
        version = folder / "metrics" / f"version_{i}"
        version.mkdir(parents=True)
        (version / "metrics.csv").write_text(text)
    return folder


def test_metrics_in_images(tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "run",
        "epoch,lyapunov/descending,step,train/loss,val/loss\n0,,1280,0.5,\n0,,6400,,0.4\n,1.0,6400,,\n",
    )
    assert read_metrics(run) == {
        "train/loss": [(1280, 0.5)],
        "val/loss": [(6400, 0.4)],
        "lyapunov/descending": [(6400, 1.0)],
    }


def test_metrics_of_a_resumed_run_are_those_of_the_later_start(tmp_path: Path) -> None:
    first = "epoch,step,train/loss\n0,64,1.0\n0,128,2.0\n0,192,9.0\n"
    run = write_run(tmp_path / "run", first, "epoch,step,train/loss\n0,128,3.0\n")
    assert read_metrics(run) == {"train/loss": [(64, 1.0), (128, 3.0)]}


def test_ten_starts_are_read_in_their_order(tmp_path: Path) -> None:
    starts = [f"epoch,step,train/loss\n0,64,{i}\n" for i in range(11)]
    assert read_metrics(write_run(tmp_path / "run", *starts)) == {"train/loss": [(64, 10.0)]}


def test_a_folder_without_metrics_has_none(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == {}


def test_broken_metrics_are_a_sentence(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", "epoch,step,train/loss\n0,1,much\n")
    with pytest.raises(UserError, match=r"metrics\.csv cannot be read"):
        read_metrics(run)
