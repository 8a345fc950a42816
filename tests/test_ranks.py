"""Several processes: they share samples in pieces, wait for the first, and average over all."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from energydiff.drawing import Drawing, draw_samples
from energydiff.ranks import RANKS, is_first_rank

SCRIPT = Path(__file__).with_name("two_ranks.py")
Found = list[dict[str, Any]]


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """The script's names, for what one process finds."""
    return runpy.run_path(str(SCRIPT))


@pytest.fixture(scope="module")
def ranks(python: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What each of two ranks found."""
    folder = tmp_path_factory.mktemp("ranks")
    done = python(SCRIPT, folder, folder=folder)
    assert done.code == 0, done.err
    assert not (folder / "patient1").exists()  # the time-out was a time-out
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(2)]


def test_samples_stay_where_they_were_drawn_or_come_to_all(
    alone: dict[str, Any], ranks: Found
) -> None:
    """Seven, in batches of two: one rank has more of them than the other."""
    expected = draw_samples(
        *(alone[name] for name in ("ENERGY", "EULER", "NUMBERS")), Drawing(3, accelerator="cpu")
    )
    mine = [found["mine"] for found in ranks]
    assert mine[0].keys().isdisjoint(mine[1]) and min(map(len, mine)) > 0
    drawn = mine[0] | mine[1]
    assert sorted(drawn) == [4, 6, 7, 8, 10]  # but for those that the first rank said to skip
    for number, sample in drawn.items():
        torch.testing.assert_close(sample, expected.samples[number - 4])
    for found in (ranks[0]["all"], ranks[1]["all"]):
        torch.testing.assert_close(found.samples, expected.samples)
        found.trace.require_untouched()
        torch.testing.assert_close(found.trace.energy, expected.trace.energy)
    for found in ranks:
        torch.testing.assert_close(found["features"], 2 * expected.samples)


def test_the_reference_is_read_by_one_rank_while_the_others_wait_beyond_any_time_out(
    ranks: Found,
) -> None:
    assert ranks[0]["extractor"] == ranks[1]["extractor"] is not None
    assert ranks[0]["reference"] > 24
    assert ranks[1]["reference"] is None


def test_what_the_first_rank_refuses_all_refuse(ranks: Found) -> None:
    assert {found["refusal"] for found in ranks} == {"the first rank does not like it."}


def test_a_penalty_follows_the_batch_of_all_ranks(alone: dict[str, Any], ranks: Found) -> None:
    expected = alone["penalised"](1, 0).state_dict()
    for found in ranks:
        for name, value in expected.items():
            torch.testing.assert_close(found["penalty"][name], value)


def test_the_first_rank_is_known_before_the_ranks_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)
    assert is_first_rank()
    monkeypatch.setenv("LOCAL_RANK", "1")  # as Lightning starts the second process
    assert not is_first_rank()
    monkeypatch.setenv("RANK", "0")  # the rank among all machines says it first
    assert is_first_rank()
