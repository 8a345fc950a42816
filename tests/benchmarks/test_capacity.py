"""The capacity study runs, its numbers are sane, and its mistakes are one sentence."""

import csv
from pathlib import Path

import pytest

from benchmarks.capacity import capacity, main, theoretical_load
from energydiff.errors import UserError
from energydiff.memory import BinaryHopfield, BitFlips, LogSumExpMemory, Masking, PolynomialMemory

CONFIG = str(Path(__file__).parents[2] / "configs/memory/capacity.yaml")


def test_hopfield_recalls_below_its_load_and_collapses_beyond(tmp_path: Path) -> None:
    memories = {"hebb": BinaryHopfield(), "cubic": PolynomialMemory(3)}
    results = capacity(memories, BitFlips(0.1), [0.05, 0.2], neurons=150, probes=40, out=tmp_path)
    shares = {(r.memory, r.load): r.recalled for r in results}
    assert shares["hebb", 0.05] > 0.95 and shares["hebb", 0.2] < 0.5
    assert shares["cubic", 0.05] == shares["cubic", 0.2] == 1
    assert all(r.certified and r.at_rest == 1 and r.probes >= 40 for r in results)
    assert [r.patterns for r in results] == [8, 8, 30, 30]


def test_known_entries_are_held(tmp_path: Path) -> None:
    (result,) = capacity({"m": LogSumExpMemory()}, Masking(0.5), [1.0], probes=20, out=tmp_path)
    assert result.recalled == 1


def test_theory() -> None:
    assert theoretical_load(BinaryHopfield(), 64, 0.05) == 0.138
    assert theoretical_load(BinaryHopfield("pseudo-inverse"), 64, 0.05) == 1
    assert theoretical_load(LogSumExpMemory(), 64, 0.05) is None
    # ½ erfc √(N²/(2·3K)) = .05 where the argument is 1.163
    cubic = theoretical_load(PolynomialMemory(3), 64, 0.05)
    assert cubic == pytest.approx(64 / (6 * 1.16309**2), rel=1e-4)


def test_the_command_writes_its_table_and_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    main(["--config", CONFIG, "--loads", "[0.05, 0.2]", "--probes", "6", "--out", str(tmp_path)])
    assert "Patterns recalled" in capsys.readouterr().out
    with (tmp_path / "recall.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 8 and {row["load"] for row in rows} == {"0.05", "0.2"}
    assert (tmp_path / "recall.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--loads", "[-1]"], "positive loads"),
        (["--neurons", "0"], "neurons >= 1"),
        (["--corruption", "Masking", "--corruption.fraction", "2"], "fraction must be between"),
        (["--memories.x", "BinaryHopfeld"], "BinaryHopfeld"),
    ],
)
def test_a_bad_configuration_is_one_sentence(
    options: list[str], says: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--config", CONFIG, *options])
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert says in error and len(error.splitlines()) == 1


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least one memory"):
        capacity({}, BitFlips(0.1), [0.1], out=tmp_path)
    with pytest.raises(UserError, match="recalled from 0"):
        capacity({"m": BinaryHopfield()}, BitFlips(0.1), [0.1], recalled=0.7, out=tmp_path)
