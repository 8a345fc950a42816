"""The page's curves: axes of V, marks of rises, ticks of cost, thinned training curves."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from energydiff.evaluation.records import Comparison, CurvePoint
from energydiff.report.page import PageModel
from energydiff.report.page.figures import POINTS, colour, cost_curve, places, traces, training
from energydiff.sampling import Trace


def with_free_energy(model: PageModel, value: torch.Tensor) -> PageModel:
    """The model with V given, (points, samples), on σ = 4, 2, 1, …; all change in the descent."""
    change = value.diff(dim=0)
    trace = Trace(
        sigma=2.0 ** torch.arange(2, 2 - len(value), -1, dtype=torch.float64),
        free_energy=value,
        energy=torch.zeros_like(value),
        grad_norm=torch.ones_like(value),
        descent=change,
        landscape=torch.zeros_like(change),
        bound=torch.zeros_like(change),
        claim="observed",
    )
    return replace(model, trace=trace)


@pytest.fixture
def falling() -> torch.Tensor:
    return torch.tensor([[100.0, 200.0], [10.0, 20.0], [1.0, 2.0]])


def test_v_above_zero_is_drawn_as_it_is(models: list[PageModel], falling: torch.Tensor) -> None:
    figure = traces([with_free_energy(models[0], falling)])[0]
    assert figure.layout.yaxis.type == "log"
    assert list(figure.data[1].y) == [200, 20, 2]
    left, right = figure.layout.xaxis.range
    assert left > right


def test_v_below_zero_bends_the_axis(models: list[PageModel], falling: torch.Tensor) -> None:
    falling[2, 0] = -1.0
    figure = traces([with_free_energy(models[0], falling)])[0]
    assert figure.layout.yaxis.type is None
    drawn = figure.data[0].y
    assert drawn[0] > drawn[1] > 0 > drawn[2]
    assert list(figure.data[0].customdata) == [100, 10, -1]
    labels = dict(zip(figure.layout.yaxis.ticktext, figure.layout.yaxis.tickvals, strict=True))
    assert labels["0"] == 0
    assert [labels["10"], labels["100"]] == pytest.approx([drawn[1], drawn[0]])


def test_energies_are_drawn_apart_on_the_same_axes(
    models: list[PageModel], falling: torch.Tensor
) -> None:
    pair = [with_free_energy(models[0], falling), with_free_energy(models[1], 9 * falling)]
    first, second = traces([pair[0], replace(models[1], trace=None), pair[1]]).values()
    assert first.layout.yaxis == second.layout.yaxis
    assert first.data[0].line.color == colour(0) and second.data[0].line.color == colour(2)


def test_rises_are_marked_where_they_end(models: list[PageModel], falling: torch.Tensor) -> None:
    falling[1, 1], falling[2, 0] = 300.0, torch.nan
    figure = traces([with_free_energy(models[0], falling)])[0]
    marks = figure.data[2]
    # V that is not finite is a rise, marked at the height of the last point that is.
    assert sorted(zip(marks.x, marks.y, strict=True)) == [(1.0, 10.0), (2.0, 300.0)]
    assert figure.data[0].y[2] is None


def cost_axis(comparison: Comparison, models: list[PageModel], *seconds: float) -> dict[str, Any]:
    """The axis of seconds where these are the costs of both curves."""
    curve = [
        CurvePoint(i, replace(comparison.a.cost, seconds=s), 1.0) for i, s in enumerate(seconds)
    ]
    arms = {"a": replace(comparison.a, curve=curve), "b": replace(comparison.b, curve=curve)}
    figure = cost_curve(replace(comparison, **arms), models)
    assert figure is not None
    axis: dict[str, Any] = figure.layout.meta["seconds"]
    return axis


@pytest.mark.parametrize(
    ("seconds", "ticks"),
    [
        ((1.0, 100.0), ["1", "2", "5", "10", "20", "50", "100"]),
        ((0.004, 0.016), ["0.005", "0.01", "0.015"]),
        ((13.0, 81.0), ["20", "40", "60", "80"]),
        ((37.4, 37.5, 37.8), ["36", "37", "38", "39"]),
        ((0.0, 0.0), ["0.96", "0.98", "1", "1.02", "1.04"]),
    ],
    ids=["decades", "an octave", "five-fold", "close", "free"],
)
def test_cost_ticks(
    models: list[PageModel], comparison: Comparison, seconds: tuple[float, ...], ticks: list[str]
) -> None:
    assert cost_axis(comparison, models, *seconds)["xaxis.ticktext"] == ticks


@pytest.mark.parametrize("low", [3e-4, 0.0097, 1.9, 37.0, 8191.0])
@pytest.mark.parametrize("ratio", [1.0, 1.001, 1.3, 2.5, 9.0, 300.0])
def test_at_least_three_cost_ticks_lie_on_the_axis(
    models: list[PageModel], comparison: Comparison, low: float, ratio: float
) -> None:
    axis = cost_axis(comparison, models, low, low * ratio)
    left, right = (10**end for end in axis["xaxis.range"])
    assert left < low and right > low * ratio
    assert sum(left <= tick <= right for tick in axis["xaxis.tickvals"]) >= 3
    assert len(set(axis["xaxis.ticktext"])) == len(axis["xaxis.tickvals"])


def test_an_arm_has_the_colour_of_its_model(
    models: list[PageModel], comparison: Comparison
) -> None:
    assert places(comparison, models) == [0, 1]
    assert places(comparison, models[::-1]) == [1, 0]
    figure = cost_curve(comparison, models[::-1])
    assert figure is not None and figure.data[0].line.color == colour(1)


def test_long_training_curves_are_means_of_neighbours(models: list[PageModel]) -> None:
    series = [(float(i), float(i % 2)) for i in range(2 * POINTS)]
    curve = training([replace(models[0], metrics={"train/loss": series})])["Training loss"].data[0]
    assert len(curve.x) == POINTS and set(curve.y) == {0.5}
    assert curve.x[0] == 0.5


def test_a_loss_of_parts_is_drawn_by_its_denoising_part(models: list[PageModel]) -> None:
    """So that a dual objective is not set against a plain one."""
    metrics = {"train/loss": [(1.0, 9.0)], "train/denoising": [(1.0, 2.0)]}
    (curve,) = training([replace(models[0], metrics=metrics)])["Training loss"].data
    assert list(curve.y) == [2.0]
