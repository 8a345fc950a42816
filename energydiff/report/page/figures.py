"""The page's figures, as plotly has them: curves of V, of cost and of training."""

import html
import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
import torch
from matplotlib.ticker import MaxNLocator

from energydiff.evaluation.logged import Series
from energydiff.evaluation.records import Comparison
from energydiff.report.page.model import PageModel
from energydiff.report.style import ALARM, PALETTE
from energydiff.report.words import distance
from energydiff.sampling.certificate import rising
from energydiff.sampling.trace import Trace

FONT = "system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', sans-serif"
MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star")
COSTS = {
    "nfe": "evaluations",
    "forward_equivalents": "forward passes",
    "seconds": "seconds",
}
TRAINING = {  # what is drawn, from the first of these series that a run has
    "Training loss": ("train/denoising", "train/loss"),
    "Held-out loss": ("val/denoising", "val/loss"),
    "Fréchet distance of samples": ("quality/frechet",),
    "Share of steps on which V fell": ("lyapunov/descending",),
    "Worst rise of V in one step": ("lyapunov/worst_rise",),
}
POINTS = 400  # of one training curve


def colour(index: int) -> str:
    """Of the model with this place on the page."""
    return PALETTE[index % len(PALETTE)]


def traces(models: Sequence[PageModel]) -> dict[int, go.Figure]:
    """V against σ, one curve per sample, by the place of each model that has a trace.

    A curve's ``meta`` is the number of its sample. Curves come before the marks of rises, so that
    curve i is the i-th line that plotly draws. All figures have the same axes.
    """
    recorded = {i: model.trace for i, model in enumerate(models) if model.trace is not None}
    scale = _Scale(list(recorded.values()))
    figures = {}
    for index, trace in recorded.items():
        figure = bare_figure(440, "noise level σ, falling", "V(x, σ)")
        for sample, values in enumerate(trace.free_energy.double().T.tolist()):
            figure.add_scatter(
                x=trace.sigma.tolist(),
                y=[scale.place(v) for v in values],
                customdata=[v if math.isfinite(v) else None for v in values],
                mode="lines+markers",
                line={"color": colour(index), "width": 1},
                marker={"size": 3},
                meta=sample,
                hovertemplate=f"sample {sample}<br>σ = %{{x:.3g}}, V = %{{customdata:.4g}}"
                "<extra></extra>",
            )
        steps = rising(trace).nonzero().tolist()
        figure.add_scatter(
            x=[float(trace.sigma[step + 1]) for step, _ in steps],
            y=[scale.place(_last_finite(trace, step + 1, sample)) for step, sample in steps],
            mode="markers",
            marker={"color": ALARM, "size": 8, "symbol": "x"},
            hoverinfo="skip",
        )
        figure.update_xaxes(**scale.sigma_axis)
        figure.update_yaxes(**scale.axis)
        figures[index] = figure
    return figures


def places(comparison: Comparison, models: Sequence[PageModel]) -> list[int]:
    """Which models of the page A and B are, for their colours."""
    arms = (comparison.a, comparison.b)
    return [
        next((i for i, model in enumerate(models) if model.path in arm.runs), letter)
        for letter, arm in enumerate(arms)
    ]


def cost_curve(comparison: Comparison, models: Sequence[PageModel]) -> go.Figure | None:
    """Quality against cost over steps.

    For every kind of cost, a curve's ``meta`` holds its x and the layout's what the axis becomes.
    """
    if not comparison.a.curve and not comparison.b.curve:
        return None
    name = distance(comparison)
    figure = bare_figure(380, "", name)
    arms = comparison.a, comparison.b
    for index, arm in zip(places(comparison, models), arms, strict=True):
        points = sorted(arm.curve, key=lambda point: point.steps)
        kinds = {kind: [getattr(point.cost, kind) for point in points] for kind in COSTS}
        figure.add_scatter(
            x=kinds["nfe"],
            y=[point.frechet for point in points],
            text=[f"{point.steps} steps" for point in points],
            mode="lines+markers",
            line={"color": colour(index), "width": 2},
            marker={"size": 8, "symbol": MARKERS[index % len(MARKERS)]},
            meta=kinds,
            name=html.escape(arm.name),
            hovertemplate=f"%{{text}}<br>%{{x:.3g}}<br>{name} %{{y:.4g}}<extra></extra>",
        )
    axes = {
        kind: {"xaxis.title.text": f"{label} per sample"}
        | _cost_axis([x for curve in figure.data for x in curve.meta[kind]])
        for kind, label in COSTS.items()
    }
    figure.update_layout(axes["nfe"], meta=axes)
    figure.update_xaxes(type="log")
    return figure


def training(models: Sequence[PageModel]) -> dict[str, go.Figure]:
    """By title what was logged while the models were trained, against images seen."""
    figures = {}
    for title, names in TRAINING.items():
        figure = bare_figure(240, "images seen", "")
        for index, model in enumerate(models):
            series = next((model.metrics[n] for n in names if n in model.metrics), [])
            if series:
                thin = _thinned(series)
                figure.add_scatter(
                    x=[images for images, _ in thin],
                    y=[value for _, value in thin],
                    mode="lines+markers" if len(thin) < 40 else "lines",
                    line={"color": colour(index), "width": 1.5},
                    marker={"size": 5, "symbol": MARKERS[index % len(MARKERS)]},
                    name=html.escape(model.name),
                    hovertemplate="%{x:,} images<br>%{y:.4g}<extra></extra>",
                )
        if figure.data:
            figure.update_xaxes(rangemode="tozero", nticks=5)
            figure.update_yaxes(nticks=5)
            figures[title] = figure
    return figures


class _Scale:
    """Logarithmic axes; that of V is linear about 0 where a learned V dips below it."""

    def __init__(self, recorded: Sequence[Trace]) -> None:
        every = torch.cat([t.free_energy.double().flatten() for t in recorded] or [torch.ones(1)])
        every = every[every.isfinite()]
        self.lowest = float(every.min()) if len(every) else 1.0
        self.highest = float(every.abs().max()) if len(every) else 1.0
        self.linear = max(1e-4 * self.highest, min(abs(self.lowest), self.highest)) or 1.0
        self.sigmas = [sigma for trace in recorded for sigma in trace.sigma.tolist()]

    @property
    def sigma_axis(self) -> dict[str, Any]:
        ends = [math.log10(max(self.sigmas) * 1.15), math.log10(min(self.sigmas) / 1.15)]
        return {"type": "log", "dtick": 1, "range": ends}

    @property
    def axis(self) -> dict[str, Any]:
        if self.lowest > 0:
            ends = [math.log10(self.lowest / 1.6), math.log10(self.highest * 1.6)]
            numbers = {"exponentformat": "none", "separatethousands": True}
            return {"type": "log", "dtick": 1, "range": ends, **numbers}
        first = math.ceil(math.log10(2 * self.linear))  # lower ones would crowd about 0
        powers = range(first, 1 + math.ceil(math.log10(self.highest or 1.0)))
        values = sorted([0.0, *(sign * 10.0**power for power in powers for sign in (1, -1))])
        low = self._bent(1.3 * self.lowest - 0.1 * self.linear)
        high = self._bent(1.6 * self.highest)
        kept = [value for value in values if low <= self._bent(value) <= high]
        labels = [f"{value:,.15g}".replace("-", "−") for value in kept]
        return {
            "range": [low, high],
            "tickvals": [self._bent(value) for value in kept],
            "ticktext": labels,
        }

    def place(self, value: float) -> float | None:
        """Where a value of V is drawn; nowhere if it is not finite."""
        if not math.isfinite(value):
            return None
        return value if self.lowest > 0 else self._bent(value)

    def _bent(self, value: float) -> float:
        return math.asinh(value / self.linear)


def _cost_axis(values: Sequence[float]) -> dict[str, Any]:
    """A logarithmic x axis over these values with ticks at 1, 2, 5, 10, …

    Values so close together that fewer than three of these lie among them have evenly spaced ticks.
    """
    values = [value for value in values if value > 0] or [1.0]
    pad = max(1.05, (max(values) / min(values)) ** 0.06)
    low, high = min(values) / pad, max(values) * pad
    powers = range(math.floor(math.log10(low)), 1 + math.floor(math.log10(high)))
    ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    if sum(low <= tick <= high for tick in ticks) < 3:
        evenly = MaxNLocator(5, steps=[1, 2, 5, 10], min_n_ticks=3)
        ticks = [float(tick) for tick in evenly.tick_values(low, high)]
    ticks = [tick for tick in ticks if low <= tick <= high]
    return {
        "xaxis.range": [math.log10(low), math.log10(high)],
        "xaxis.tickvals": ticks,
        "xaxis.ticktext": [f"{tick:g}" for tick in ticks],
    }


def _last_finite(trace: Trace, point: int, sample: int) -> float:
    after, before = trace.free_energy[point, sample], trace.free_energy[point - 1, sample]
    return float(after if after.isfinite() else before)


def _thinned(series: Series) -> Series:
    """Means over runs of neighbours, where there are too many points to draw."""
    length = math.ceil(len(series) / POINTS)
    groups = [series[i : i + length] for i in range(0, len(series), length)]
    return [
        (sum(images for images, _ in g) / len(g), sum(value for _, value in g) / len(g))
        for g in groups
    ]


def bare_figure(height: int, x: str, y: str) -> go.Figure:
    """Bare axes; the style sheet gives text and grid the colours of light and dark."""
    figure = go.Figure()
    axis = {
        "automargin": True,  # room for long labels, with the title beside and not upon them
        "fixedrange": True,
        "zeroline": False,
        "showline": False,
        "ticks": "",
        "ticklabelstandoff": 5,
    }
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 64, "r": 16, "t": 12, "b": 52},
        font={"family": FONT, "size": 13},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        showlegend=False,
        dragmode=False,
        hovermode="closest",
        xaxis={**axis, "title": {"text": x}, "showgrid": False},
        yaxis={**axis, "title": {"text": y, "standoff": 10}, "showgrid": True, "gridwidth": 1},
    )
    return figure
