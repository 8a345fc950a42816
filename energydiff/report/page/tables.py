"""The page's tables: rows of strings, from the records they are about."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from energydiff.errors import UserError
from energydiff.evaluation.records import Comparison, Controls, Interval, Provenance
from energydiff.numerals import number
from energydiff.report.page.model import PageModel
from energydiff.report.page.run import run_name
from energydiff.report.words import distance, interval, numbers
from energydiff.sampling import Certificate
from energydiff.sampling.words import counts
from energydiff.saving import SavedModel

NAMES = {
    "reference": "SHA-256 of the reference",
    "reference_count": "reference images",
    "extractor_hash": "SHA-256 of its weights",
    "samples": "samples n",
    "blocks": "blocks of seeds",
    "sigma_min": "lowest σ",
    "sigma_max": "highest σ",
}

NO_DIFFERENCE = ("–", "–", "–")


@dataclass(frozen=True)
class Table:
    """A table whose first column heads its rows.

    Attributes:
        caption: what it shows.
        head: of all columns, the first one's as well.
        rows: cells, as many as ``head`` each.
        text: whether cells are words, set from the left, and not numbers.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: bool = False


def training(model: PageModel) -> Table:
    """What was trained, and how."""
    saved = model.model
    described, noise = _described(saved), saved.denoiser.noise
    settings, data = saved.config.get("model", {}), saved.config.get("data", {})
    backbone = dict(described.get("backbone", {}))
    network = backbone.pop("class", "")
    sizes = sum(p.numel() for p in saved.denoiser.parameters())
    objective = settings.get("objective")
    objective = objective.get("class_path") if isinstance(objective, dict) else objective
    versions = ", ".join(f"{name} {version}" for name, version in model.versions.items())
    rows = {
        "data set": _data_set(data.get("source", {})),
        "shape": " × ".join(map(str, saved.denoiser.shape)),
        "backbone": network,
        "settings": _settings(backbone),
        "parametrization": described.get("parametrization", described["class"]),
        "parameters": f"{sizes:,}" if sizes else None,
        "images seen": _images(model, settings.get("total_images")),
        "objective": _spaced(objective or "DenoisingScoreMatching") if settings else None,
        "images per step": data.get("batch_size"),
        "learning rate": settings.get("learning_rate"),
        "EMA": _average(saved.config.get("ema", {})),
        "noise levels": noise and f"σ = {noise.sigma_min:g} to {noise.sigma_max:g}",
        "training seed": saved.config.get("seed_everything"),
        "versions": versions,
        "folder": run_name(model.path),
    }
    kept = [(name, str(value)) for name, value in rows.items() if value not in (None, "")]
    return Table(model.name, ("", "value"), kept, text=True)


def _data_set(source: dict[str, Any]) -> str:
    """In words, without building it: a class of one's own need not be there.

    A folder goes by its name alone.
    """
    name = source.get("class_path", "").rpartition(".")[2]
    root = source.get("init_args", {}).get("root")
    return f"{name} in {Path(root).name}" if root else name


def certificates(records: Sequence[tuple[str, Certificate]]) -> Table:
    """Certificates side by side, each after its name."""
    columns = [counts(record) for _, record in records]
    rows = [(cells[0][0], *(text for _, text in cells)) for cells in zip(*columns, strict=True)]
    return Table("Steps counted over all samples", ("", *(n for n, _ in records)), rows)


def quality(comparison: Comparison) -> Table:
    """All measures of both arms, with intervals of A − B where there are any."""
    a, b, name = comparison.a.quality, comparison.b.quality, distance(comparison)
    rows = [
        (f"{name} ↓", *numbers(a.frechet, b.frechet), *_difference(comparison.frechet)),
        (f"{name}, n → ∞ ↓", *numbers(a.frechet_infinity, b.frechet_infinity), *NO_DIFFERENCE),
        ("KID ↓", *numbers(a.kid, b.kid), *_difference(comparison.kid)),
    ]
    if a.inception_score is not None and b.inception_score is not None:
        scores = numbers(a.inception_score, b.inception_score)
        rows.append(("Inception Score ↑", *scores, *NO_DIFFERENCE))
    rows += [
        ("precision ↑", *numbers(a.precision, b.precision), *NO_DIFFERENCE),
        ("recall ↑", *numbers(a.recall, b.recall), *NO_DIFFERENCE),
    ]
    where = comparison.provenance
    caption = (
        f"{where.samples:,} samples of each in {where.blocks} blocks of seeds, features of"
        f" {where.extractor}; intervals over {comparison.over}. ↓ less is better, ↑ more is better."
    )
    head = ("", _arm("A", comparison.a.name), _arm("B", comparison.b.name))
    return Table(caption, (*head, "A − B", "95 % interval", "A is"), rows)


def controls(record: Controls) -> Table:
    """What must come out as known."""
    same, degraded = record.same, record.degraded
    contains = "yes" if same.low <= 0 <= same.high else "no"
    rows = [
        ("A against A, other seeds", *interval(same), "contain 0", contains),
        (
            f"A degraded ({record.degradation}) against A",
            *interval(degraded),
            "lie above 0",
            "yes" if degraded.low > 0 else "no",
        ),
        (
            f"the floor: {record.floor.count:,} {record.floor.part} images (as many samples of A:"
            f" {number(record.floor.samples)})",
            *(number(record.floor.held_out), "–", "–", "–"),
        ),
    ]
    return Table("Controls", ("", "value", "95 % interval", "must", "does"), rows)


def blocks(comparison: Comparison) -> Table:
    """Distance of every block of seeds."""
    count = comparison.provenance.blocks
    rows = [
        (f"{letter}, {run_name(run)}", *numbers(*values), *([""] * (count - len(values))))
        for letter, arm in (("A", comparison.a), ("B", comparison.b))
        for run, values in zip(arm.runs, arm.block_frechet, strict=False)
    ]
    head = ("run", *(f"block {i + 1}" for i in range(count)))
    return Table(f"{distance(comparison)} of each block of seeds", head, rows)


def provenance(record: Provenance) -> Table:
    """All that the numbers depend on beside the models; a folder by its name alone."""
    rows = []
    for field in fields(record):
        value = getattr(record, field.name)
        if field.name == "data":
            value = _without_folders(value)
        if isinstance(value, dict):
            value = ", ".join(f"{name} {version}" for name, version in value.items())
        if isinstance(value, float):
            value = f"{value:g}"
        if isinstance(value, int):
            value = f"{value:,}"
        rows.append((NAMES.get(field.name, field.name), str(value)))
    return Table("What these numbers depend on", ("", "value"), rows, text=True)


def cost(comparison: Comparison) -> Table:
    """What one sample costs, three ways."""
    a, b = comparison.a.cost, comparison.b.cost
    rows = [
        ("evaluations of the model (NFE)", f"{a.nfe:,}", f"{b.nfe:,}"),
        (
            "forward passes they amount to",
            *numbers(a.forward_equivalents, b.forward_equivalents),
        ),
        ("seconds", *numbers(a.seconds, b.seconds)),
    ]
    head = ("", _arm("A", comparison.a.name), _arm("B", comparison.b.name))
    return Table("Cost of one sample", head, rows)


def matched(comparison: Comparison) -> Table:
    """B at the cost of A."""
    at, mine = comparison.matched, comparison.matched_frechet
    rows = []
    for label, value in (
        ("as many evaluations", at.nfe),
        ("as many forward passes", at.forward_equivalents),
        ("as many seconds", at.seconds),
    ):
        cells = numbers(mine, value)
        rows.append((label, cells[0], "outside its curve" if value is None else cells[1]))
    caption = f"{distance(comparison)} of one block of seeds, with B at the cost of A"
    return Table(caption, ("with", "A", "B"), rows)


def beside(comparison: Comparison) -> Table:
    """What is known of an energy beside its samples."""
    a, b = comparison.a, comparison.b
    rows = []
    if a.bits_per_dim is not None or b.bits_per_dim is not None:
        bits = numbers(a.bits_per_dim, b.bits_per_dim)
        rows.append(("bits/dim of held-out images", *bits))
    if a.asymmetry is not None and b.asymmetry is not None:
        rows.append(("asymmetry of the denoiser's Jacobian", *numbers(a.asymmetry, b.asymmetry)))
    rows += [
        ("nearest training image, of samples", *numbers(a.nearest.samples, b.nearest.samples)),
        (
            "nearest training image, of held-out images",
            *numbers(a.nearest.held_out, b.nearest.held_out),
        ),
    ]
    caption = "Measured beside quality"
    return Table(caption, ("", _arm("A", a.name), _arm("B", b.name)), rows)


def _without_folders(data: str) -> str:
    """``folder at /of/the/author/icons, train part`` as ``folder at icons, train part``."""
    source, at, rest = data.partition(" at ")
    root, comma, part = rest.rpartition(", ")
    return f"{source}{at}{Path(root).name}{comma}{part}" if at else data


def _difference(value: Interval) -> tuple[str, str, str]:
    return (*interval(value), value.verdict)


def _arm(letter: str, name: str) -> str:
    return f"{letter}: {name}"


def _described(saved: SavedModel) -> dict[str, Any]:
    try:
        model: dict[str, Any] = saved.denoiser.describe()
    except UserError:  # what cannot be exported has a class all the same
        model = {"class": type(saved.denoiser).__name__}
    return model


def _images(model: PageModel, planned: int | None) -> str | None:
    if model.images_seen is not None:
        return f"{model.images_seen:,}"
    return None if planned is None else f"{planned:,} by the configuration"


def _average(ema: dict[str, Any]) -> str | None:
    halflife = ema.get("halflife_images")
    return None if halflife is None else f"half-life {halflife:,} images"


def _settings(values: dict[str, Any]) -> str:
    def told(value: Any) -> str:
        if value in (None, []):
            return "none"
        return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

    return "; ".join(
        f"{name.replace('_', ' ')} {told(value)}"
        for name, value in values.items()
        if name not in ("shape", "num_classes")
    )


def _spaced(class_path: str) -> str:
    """``a.b.DenoisingScoreMatching`` as ``denoising score matching``."""
    name = class_path.rpartition(".")[2]
    return "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()
