"""The page: records in, one HTML file out."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from energydiff.errors import UserError
from energydiff.evaluation.records import Comparison
from energydiff.files import write_whole
from energydiff.report.page import figures, tables
from energydiff.report.page.landscape import PageLandscape
from energydiff.report.page.model import PageModel
from energydiff.report.page.pictures import picture_uri, sample_uris, strip_uris
from energydiff.report.words import verdict
from energydiff.sampling import words

HERE = Path(__file__).parent


def write_page(
    models: Sequence[PageModel],
    comparison: Comparison | None,
    pictures: Mapping[str, Path],
    out: Path,
    landscapes: Sequence[PageLandscape] = (),
) -> None:
    """Write one self-contained HTML file, which opens offline.

    Args:
        models: what the page is about, side by side.
        comparison: of the first two, as ``evaluate compare`` leaves it; ``None`` if not made.
        pictures: of the energy landscape, by title the file.
        out: replaced in one step, when the whole page is there.
        landscapes: disconnectivity graphs.

    Raises:
        UserError: there is no model, models differ in the shape or number of samples, or a picture
            cannot be read.
    """
    _require_one_shape(models)
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    page = environment.get_template("page.html.jinja")
    curves = figures.training(models)
    recorded = figures.traces(models)
    drawn = {
        **{f"traces-figure-{i}": figure for i, figure in recorded.items()},
        "cost-figure": None if comparison is None else figures.cost_curve(comparison, models),
        **{_id(i): figure for i, figure in enumerate(curves.values())},
        **{f"landscape-figure-{i}": shown.figure for i, shown in enumerate(landscapes)},
    }
    drawn = {place: figure for place, figure in drawn.items() if figure is not None}
    pictured = _picture_shape(models[0]) is not None
    columns = [_column(i, models) for i in range(len(models))] if pictured else []
    text = page.render(
        **_text(models, comparison),
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        script=(HERE / "page.js").read_text(encoding="utf-8"),
        plotly=get_plotlyjs(),
        pictured=pictured,
        broken=not all(bool(model.samples.isfinite().all()) for model in models),
        models=columns,
        across=math.ceil(math.sqrt(len(models[0].samples))),
        traces=[(f"traces-figure-{i}", models[i].name, figures.colour(i)) for i in recorded],
        curves=[(_id(i), title) for i, title in enumerate(curves)],
        has_cost_curve="cost-figure" in drawn,
        landscapes=landscapes,
        pictures=[(name, picture_uri(Path(file))) for name, file in pictures.items()],
        data={
            "figures": {name: json.loads(figure.to_json()) for name, figure in drawn.items()},
            "strips": [column["strips"] for column in columns],
            "landscapes": [shown.images for shown in landscapes],
        },
    )
    write_whole(Path(out), text.encode())


def _require_one_shape(models: Sequence[PageModel]) -> None:
    if not models:
        raise UserError("a page needs at least one model.")
    first = tuple(models[0].samples.shape)
    for model in models:
        if tuple(model.samples.shape) != first:
            raise UserError(
                f"models of one page need samples of one shape: {models[0].name} has {first},"
                f" {model.name} {tuple(model.samples.shape)}."
            )


def _picture_shape(model: PageModel) -> tuple[int, ...] | None:
    """Of a sample as it is shown; ``None`` where it is none."""
    return model.model.normalization.picture_shape(tuple(model.samples.shape[1:]))


def _id(index: int) -> str:
    return f"training-figure-{index}"


def _column(index: int, models: Sequence[PageModel]) -> dict[str, Any]:
    """One model in pictures."""
    model = models[index]
    normalization = model.model.normalization
    _, height, width = _picture_shape(model) or ()
    return {
        "name": model.name,
        "colour": figures.colour(index),
        "samples": sample_uris(model.samples, normalization),
        "strips": strip_uris(model.trajectories, normalization, len(models) * len(model.samples)),
        "sigmas": [f"{sigma:.2g}" for sigma in model.sigmas.tolist()],
        "shape": f"{width} / {height}",
    }


def _text(models: Sequence[PageModel], comparison: Comparison | None) -> dict[str, Any]:
    """Sentences, tables and keys."""
    coloured = [(model.name, figures.colour(i)) for i, model in enumerate(models)]
    records = [(m.name, m.certificate) for m in models if m.certificate is not None]
    if comparison is not None:
        records += [
            (f"{arm.name}, {arm.certificate.samples:,} samples", arm.certificate)
            for arm in (comparison.a, comparison.b)
            if arm.certificate is not None
        ]
    none = [model.name for model in models if model.certificate is None]
    content: dict[str, Any] = {
        "title": " and ".join(model.name for model in models),
        "verdict": " ".join(
            [f"The certificate of {name} {words.verdict(record)}" for name, record in records]
            + [f"{name} has no energy, so there is nothing to certify." for name in none]
        ),
        "trained": [tables.training(model) for model in models],
        "rose": any(m.certificate.rises for m in models if m.certificate is not None),
        "certificates": [(name, f"It {words.sentences(record)}") for name, record in records]
        + [(name, "It has no energy, so there is nothing to certify.") for name in none],
        "certificate_table": tables.certificates(records) if records else None,
        "logged": [pair for pair, m in zip(coloured, models, strict=True) if m.metrics],
        "unlogged": [m.name for m in models if not m.metrics],
        "quality": None,
        "cost": None,
        "beside": None,
        "costs": figures.COSTS.items(),
    }
    return content | (_compared(comparison, models) if comparison is not None else {})


def _compared(comparison: Comparison, models: Sequence[PageModel]) -> dict[str, Any]:
    """What only a comparison knows."""
    arms, controls = (comparison.a, comparison.b), comparison.controls
    colours = [figures.colour(i) for i in figures.places(comparison, models)]
    return {
        "title": f"{comparison.a.name} against {comparison.b.name}",
        "verdict": verdict(comparison),
        "quality": tables.quality(comparison),
        "controls": None if controls is None else tables.controls(controls),
        "failures": [] if controls is None else controls.failures(),
        "provenance": tables.provenance(comparison.provenance),
        "blocks": tables.blocks(comparison),
        "cost": tables.cost(comparison),
        "matched": tables.matched(comparison),
        "arms": [(arm.name, colour) for arm, colour in zip(arms, colours, strict=True)],
        "beside": tables.beside(comparison),
    }
