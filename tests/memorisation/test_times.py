"""Times of memorising and generalising, how they grow, and what a study says of its sizes."""

import math

import pytest

from energydiff.errors import UserError
from energydiff.memorisation import generalising_time, growth, memorising_time
from energydiff.memorisation.summary import crossing, resting_noise, summary, time_table


def test_memorising_begins_between_two_looks() -> None:
    series = [(1_000.0, 0.0), (4_000.0, 0.05), (16_000.0, 0.15), (64_000.0, 0.9)]
    assert memorising_time(series) == pytest.approx(8_000)  # half way in the logarithm
    assert memorising_time(series[2:]) == 16_000  # at the first look already
    assert math.isnan(memorising_time(series[:2]))
    assert memorising_time(series, share=0.9) == pytest.approx(64_000)


def test_generalising_is_near_the_least_held_out_loss() -> None:
    assert generalising_time([(1, 1.0), (2, 0.52), (4, 0.5), (8, 0.9)]) == 2
    assert math.isnan(generalising_time([]))


def test_times_that_grow_with_size() -> None:
    sizes = [4, 8, 16, 64]
    found = growth(sizes, [100 * k for k in sizes])
    assert found.rate == pytest.approx(100) and found.r2 == pytest.approx(1)
    assert found.exponent == pytest.approx(1) and found.exponent_r2 == pytest.approx(1)
    square = growth(sizes, [k**2 for k in sizes])
    assert square.exponent == pytest.approx(2) and square.exponent_r2 == pytest.approx(1)
    assert square.r2 == pytest.approx(0.75)  # half of the slope is left: 1 − (1/2)²
    known = growth([*sizes, 128], [*(100 * k for k in sizes), math.nan])
    assert known == found
    with pytest.raises(UserError, match="three times of two sizes"):
        growth([4, 4, 4], [1, 2, 3])


def test_where_a_falling_share_crosses_half() -> None:
    assert crossing([(4, 1.0), (16, 0.75), (64, 0.25), (256, 0.0)]) == pytest.approx(32)
    assert math.isnan(crossing([(4, 0.4), (16, 0.1)]))
    assert math.isnan(crossing([(4, 0.9), (16, 0.8)]))


def run(images: int, seed: int, memorised: float, spurious: float, control: float = 0.01) -> dict:
    def shares(memorised: float, spurious: float) -> dict:
        return {
            "memorised": memorised,
            "spurious": spurious,
            "generalised": 1 - memorised - spurious,
            "copies": memorised,
            "count": 1_000,
        }

    watched = {
        "images": [1_000.0, 10_000.0, 100_000.0],
        "memorised": [0.0, 0.0 if images > 30 else 0.5, 1.0],
        "held_out_loss": [1.0, 0.5, 2.0],
    }
    space = {"samples": shares(memorised, spurious), "held_out": shares(0.0, control)}
    return {"images": images, "seed": seed, "spaces": {"pixels": space}, "watched": watched}


def test_a_peak_above_the_control_and_one_that_is_not() -> None:
    """Intervals over seeds, and one that knows that the size was chosen among three."""
    clear = [
        run(images, seed, memorised, spurious + 0.002 * seed)
        for images, memorised, spurious in ((8, 1.0, 0.0), (32, 0.6, 0.1), (128, 0.0, 0.01))
        for seed in range(3)
    ]
    found = summary(clear, "pixels")
    assert found["peak"]["images"] == 32
    assert found["peak"]["difference"]["mean"] == pytest.approx(0.092)
    assert found["peak"]["above_control"] and found["peak"]["above_control_widened"]
    assert found["peak"]["widened"]["low"] < found["peak"]["difference"]["low"]
    assert found["crossing"]["mean"]["mean"] == pytest.approx(32 * 4 ** (1 / 6))
    assert [row["images"] for row in found["shares"]] == [8, 32, 128]
    assert found["shares"][1]["held_out"]["spurious"]["mean"] == pytest.approx(0.01)
    noisy = [run(32, seed, 0.6, 0.02 + 0.06 * (seed == 2)) for seed in range(3)]
    assert not summary(noisy, "pixels")["peak"]["above_control"]
    alone = summary(clear[::3], "pixels")["peak"]
    assert not alone["above_control"] and math.isnan(alone["difference"]["low"])


def test_the_noise_that_a_study_looks_at() -> None:
    """Where memories hold and other samples rest elsewhere; of equal ones the highest."""

    def scanned(spurious: list[int], home: list[int]) -> dict:
        phases = {
            "memorised": {"count": 8, "home": home, "spurious": [0, 0, 0]},
            "spurious": {"count": 8, "home": [0, 0, 0], "spurious": spurious},
        }
        return {"rests": {"sigma": [0.1, 0.3, 0.9], "phases": phases}}

    assert resting_noise([scanned([0, 1, 2], [8, 8, 0]), scanned([0, 3, 8], [8, 8, 0])]) == 0.3
    assert resting_noise([scanned([0, 1, 8], [8, 8, 4])]) == 0.9
    assert resting_noise([scanned([0, 0, 0], [8, 8, 0])]) == 0.3
    assert resting_noise([scanned([0, 0, 0], [8, 6, 0]), {}]) == 0.1
    only = scanned([0, 0, 0], [8, 8, 8])
    del only["rests"]["phases"]["spurious"]
    assert resting_noise([only]) == 0.9
    assert resting_noise([{}]) == 0


def test_the_table_of_times() -> None:
    runs = [run(images, seed, 1, 0) for images in (8, 32, 128) for seed in range(2)]
    found = time_table(runs, 0.1)
    assert len(found["runs"]) == 6
    assert found["fits"]["memorising"]["sizes"] == [8, 32, 128]
    assert found["fits"]["generalising"]["exponent"] == pytest.approx(0, abs=1e-9)
    early = [{**one, "watched": one["watched"] | {"memorised": [0.2, 0.6, 1.0]}} for one in runs]
    assert all(math.isnan(row["memorising"]) for row in time_table(early, 0.1)["runs"])
    bare = [{**one, "watched": {"images": []}} for one in runs]
    assert time_table(bare, 0.1) == {
        "runs": [],
        "fits": {"memorising": None, "generalising": None},
        "share": 0.1,
    }
