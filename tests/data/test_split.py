import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from energydiff.data.split import is_held_out, split_rows
from energydiff.errors import UserError

fractions = st.floats(0, 1)


@example("\udcff.png", 0.1, 0.2)  # a file name that is not UTF-8
@example("\ud800", 0.1, 0.2)
@given(st.text(st.characters(codec=None)), fractions, fractions)
def test_a_larger_fraction_holds_out_a_superset(name: str, one: float, other: float) -> None:
    assert is_held_out(name, min(one, other)) <= is_held_out(name, max(one, other))


@settings(max_examples=40)
@given(st.sets(st.text(max_size=8), max_size=30), st.sets(st.text(max_size=8), max_size=30))
def test_adding_samples_moves_none_across(before: set[str], added: set[str]) -> None:
    always = ["a", "b", "c", "d"]  # two on either side

    def held_out(names: set[str]) -> set[str]:
        ordered = [*always, *sorted(names)]
        train, held = split_rows(ordered, 0.5, "here")
        assert sorted([*train, *held]) == list(range(len(ordered)))
        return {ordered[row] for row in held}

    assert held_out(before) == held_out(before | added) & {*always, *before}


def test_the_share_held_out_is_the_fraction() -> None:
    names = [f"{i:06d}.png" for i in range(20_000)]
    _, held = split_rows(names, 0.1, "here")
    assert len(held) == pytest.approx(2_000, abs=4 * (20_000 * 0.1 * 0.9) ** 0.5)


def test_the_hash_is_fixed_for_good() -> None:
    """A change here would leak held-out samples of earlier runs into the training of later ones."""
    assert [is_held_out(f"{i:06d}", 1 / 6) for i in range(12)] == [i in (3, 4) for i in range(12)]


@pytest.mark.parametrize("fraction", [1, -0.1, float("nan")])
def test_the_fraction_must_lie_between_0_and_1(fraction: float) -> None:
    with pytest.raises(UserError, match=r"data\.source\.held_out must lie between 0 and 1"):
        split_rows(["a", "b"], fraction, "here")


@pytest.mark.parametrize(("fraction", "part"), [(1e-6, "held-out"), (1 - 1e-6, "training")])
def test_neither_part_may_be_empty(fraction: float, part: str) -> None:
    with pytest.raises(UserError, match=rf"here: .*2 samples falls in the {part} part"):
        split_rows(["a", "b"], fraction, "here")


def test_nothing_need_be_held_out() -> None:
    train, held_out = split_rows(["a", "b"], 0, "here")
    assert train.tolist() == [0, 1] and held_out.tolist() == []
