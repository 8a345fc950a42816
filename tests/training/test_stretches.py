"""Data may grow, shrink or be renamed under a run: passes stay whole and the stream exact."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from energydiff.data import Normalization
from energydiff.data.source import ArraySource
from energydiff.errors import UserError
from energydiff.training.stream import TrainingStream
from energydiff.training.stretches import Stretch, recorded, resumed


def named(names: Sequence[str]) -> ArraySource:
    return ArraySource(np.zeros((len(names), 1), np.float32), Normalization(0, 1), list(names))


def run(source: ArraySource, stretches: list[Stretch], first: int, last: int) -> list[str]:
    stream = TrainingStream(source, 0, stretches)
    return [source.names[stream.index(count)] for count in range(first, last)]


def begun(source: ArraySource) -> list[Stretch]:
    return [Stretch(0, 0, source.places)]


OLD = [f"{i:02d}" for i in range(10)]
GROWN = sorted([*OLD, "03a", "11", "00b"])


def test_the_same_data_go_on_as_they_were() -> None:
    source = named(OLD)
    again = resumed(recorded(begun(source), source), 13, source)
    assert run(source, again, 13, 60) == run(source, begun(source), 13, 60)


@pytest.mark.parametrize("seen", [1, 9, 13, 20, 27])
def test_a_pass_that_was_begun_is_finished_and_the_next_takes_all(seen: int) -> None:
    old, new = named(OLD), named(GROWN)
    ends = -(-seen // 10) * 10
    if seen < ends:
        with pytest.warns(UserWarning, match=f"3 are new.* from image {ends} on"):
            stretches = resumed(recorded(begun(old), old), seen, new)
    else:
        with pytest.warns(UserWarning, match="3 are new"):
            stretches = resumed(recorded(begun(old), old), seen, new)
    assert run(new, stretches, seen, ends) == run(old, begun(old), seen, ends)
    passes = [run(new, stretches, ends + i * 13, ends + (i + 1) * 13) for i in range(3)]
    assert all(sorted(part) == GROWN for part in passes)
    assert len({tuple(part) for part in passes}) == 3


@settings(max_examples=50, deadline=None)
@given(stops=st.lists(st.integers(1, 25), min_size=1, max_size=5), seed=st.integers(0, 9))
@pytest.mark.filterwarnings("ignore:the training samples")
def test_every_pass_sees_every_sample_of_its_beginning_once(stops: list[int], seed: int) -> None:
    """Whenever and however often the data grow."""
    data, seen = {0: list(OLD)}, 0
    source = named(OLD)
    stretches, met = begun(source), []
    for stop in stops:
        met += run(source, stretches, seen, seen + stop)
        seen += stop
        record = recorded(stretches, source)
        data[seen] = sorted([*source.names, f"new{seen}"])
        source = named(data[seen])
        stretches = resumed(record, seen, source)
    met += run(source, stretches, seen, seen + 40)
    first = 0
    while first < seen:
        there = data[max(stop for stop in data if stop <= first)]
        assert sorted(met[first : first + len(there)]) == there
        first += len(there)


def test_the_next_takes_the_place_of_a_sample_that_is_gone() -> None:
    old, new = named(OLD), named([name for name in OLD if name != "04"])
    with pytest.warns(UserWarning, match="1 are gone or have another name, such as 04"):
        stretches = resumed(recorded(begun(old), old), 3, new)
    before = run(old, begun(old), 3, 10)
    assert run(new, stretches, 3, 10) == ["05" if name == "04" else name for name in before]
    assert sorted(run(new, stretches, 10, 19)) == list(new.names)


def test_a_change_is_warned_of_once() -> None:
    old, new = named(OLD), named(GROWN)
    with pytest.warns(UserWarning):
        stretches = resumed(recorded(begun(old), old), 3, new)
    again = resumed(recorded(stretches, new), 5, new)  # warnings are errors here
    assert run(new, again, 5, 40) == run(new, stretches, 5, 40)


def test_other_data_altogether_are_refused() -> None:
    old, new = named(OLD), named([f"train/{name}" for name in OLD])
    with pytest.raises(UserError, match="none of the 10 samples of this run, such as 00"):
        resumed(recorded(begun(old), old), 3, new)


def test_what_a_checkpoint_keeps_can_be_read_without_trust(tmp_path) -> None:
    source = named(["a/1.png", "a/ü.png", "b\n.png"])
    record = recorded(begun(source), source)
    torch.save(record, tmp_path / "file")
    again = torch.load(tmp_path / "file", weights_only=True)
    assert np.array_equal(resumed(again, 2, source)[0].places, source.places)
