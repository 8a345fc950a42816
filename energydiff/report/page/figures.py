"""The page's figures, as plotly has them: curves of V, of cost and of training."""

import html
import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
import torch

from energydiff.evaluation.comparison import Comparison
from energydiff.report.page.model import PageModel
from energydiff.report.page.run import Series
from energydiff.report.page.words import distance
from energydiff.report.style import ALARM, PALETTE
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
    "Share of steps on which V fell": ("lyapunov/descending",),
    "Worst rise of V in one step": ("lyapunov/worst_rise",),
}
POINTS = 400  # of one training curve


def colour(index: int) -> str:
    """Of the model with this place on the page."""
    return PALETTE[index % len(PALETTE)]


def traces(models: Sequence[PageModel]) -> go.Figure | None:
    """V against σ, one curve per sample; ``None`` where no model has a trace.

    A curve's ``meta`` is the number of its sample. Curves come before the marks of rises, so that
    curve i is the i-th line that plotly draws.
    """
    recorded = [(i, m, m.trace) for i, m in enumerate(models) if m.trace is not None]
    if not recorded:
        return None
    scale = _Scale([trace for _, _, trace in recorded])
    figure = _figure(460, "noise level σ, falling", "V(x, σ)")
    for index, model, trace in recorded:
        sigma, name = trace.sigma.tolist(), html.escape(model.name)
        for sample, values in enumerate(trace.free_energy.double().T.tolist()):
            figure.add_scatter(
                x=sigma,
                y=[scale.place(v) for v in values],
                customdata=[v if math.isfinite(v) else None for v in values],
                mode="lines+markers",
                line={"color": colour(index), "width": 1},
                marker={"size": 3},
                opacity=0.45,
                meta=sample,
                name=name,
                hovertemplate=f"{name}, sample {sample}<br>σ = %{{x:.3g}}, V = %{{customdata:.4g}}"
                "<extra></extra>",
            )
    for _, _, trace in recorded:
        sigma, rose = trace.sigma.tolist(), rising(trace)
        ends = torch.arange(1, len(sigma))[:, None].expand_as(rose)[rose].tolist()
        columns = torch.arange(rose.shape[1]).expand_as(rose)[rose].tolist()
        figure.add_scatter(
            x=[sigma[k] for k in ends],
            y=[scale.place(_last_finite(trace, k, i)) for k, i in zip(ends, columns, strict=True)],
            mode="markers",
            marker={"color": ALARM, "size": 7, "symbol": "x"},
            hoverinfo="skip",
            name="V rose",
        )
    sigmas = [s for _, _, trace in recorded for s in trace.sigma.tolist()]
    ends_of_axis = [math.log10(max(sigmas) * 1.15), math.log10(min(sigmas) / 1.15)]
    figure.update_xaxes(type="log", dtick=1, range=ends_of_axis)
    figure.update_yaxes(**scale.axis)
    return figure


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
    figure = _figure(380, "", name)
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
        kind: {"xaxis.title.text": f"{label} per sample", "xaxis.autorange": True}
        | _ticks([x for curve in figure.data for x in curve.meta[kind]])
        for kind, label in COSTS.items()
    }
    figure.update_layout(axes["nfe"], meta=axes)
    figure.update_xaxes(type="log")
    return figure


def training(models: Sequence[PageModel]) -> dict[str, go.Figure]:
    """By title what was logged while the models were trained, against images seen."""
    figures = {}
    for title, names in TRAINING.items():
        figure = _figure(240, "images seen", "")
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
    """A logarithmic axis for V, linear about 0 where a learned V dips below it."""

    def __init__(self, recorded: Sequence[Trace]) -> None:
        every = torch.cat([trace.free_energy.double().flatten() for trace in recorded])
        every = every[every.isfinite()]
        self.lowest = float(every.min()) if len(every) else 1.0
        highest = float(every.abs().max()) if len(every) else 1.0
        self.linear = max(1e-4 * highest, min(abs(self.lowest), highest)) or 1.0
        self.highest = highest

    @property
    def axis(self) -> dict[str, Any]:
        if self.lowest > 0:
            return {"type": "log", "dtick": 1, "exponentformat": "none", "separatethousands": True}
        values = [0.0]
        top = math.ceil(math.log10(max(self.highest, self.linear)))
        for power in range(math.floor(math.log10(self.linear)), top + 1):
            values += [10.0**power, -(10.0**power)]
        low, high = self._bent(1.3 * self.lowest), self._bent(1.6 * self.highest)
        kept = sorted(v for v in values if low <= self._bent(v) <= high)
        labels = [f"{v:g}".replace("-", "−") for v in kept]
        return {"tickvals": [self._bent(v) for v in kept], "ticktext": labels}

    def place(self, value: float) -> float | None:
        """Where a value of V is drawn; nowhere if it is not finite."""
        if not math.isfinite(value):
            return None
        return value if self.lowest > 0 else self._bent(value)

    def _bent(self, value: float) -> float:
        return math.asinh(value / self.linear)


def _ticks(values: Sequence[float]) -> dict[str, Any]:
    """Ticks at 1, 2, 5, 10, … for a logarithmic x axis over these positive values."""
    powers = range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))))
    ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    ticks.append(10.0**powers.stop)
    return {"xaxis.tickvals": ticks, "xaxis.ticktext": [f"{tick:g}" for tick in ticks]}


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


def _figure(height: int, x: str, y: str) -> go.Figure:
    """Bare axes; the style sheet gives text and grid the colours of light and dark."""
    figure = go.Figure()
    axis = {"fixedrange": True, "zeroline": False, "showline": False, "ticks": ""}
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
        yaxis={**axis, "title": {"text": y}, "showgrid": True, "gridwidth": 1},
    )
    return figure
