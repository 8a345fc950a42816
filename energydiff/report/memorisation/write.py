"""Figures and page of a study: the record in, files out."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from energydiff.files import write_whole
from energydiff.report.memorisation import tables
from energydiff.report.memorisation.exemplars import exemplars_plot
from energydiff.report.memorisation.fates import counted, fates_plot
from energydiff.report.memorisation.findings import findings
from energydiff.report.memorisation.halves import halves_plot
from energydiff.report.memorisation.rests import rests_plot, was_scanned
from energydiff.report.memorisation.rows import Record, has_energies
from energydiff.report.memorisation.shares import shares_plot
from energydiff.report.memorisation.states import states_plot
from energydiff.report.memorisation.times import times_plot, was_watched
from energydiff.report.page.pictures import picture_uri

HERE = Path(__file__).parent
PAGE = HERE.parent / "page"
NAME = "memorisation.html"


def write_study(record: dict[str, Any], folder: Path) -> list[str]:
    """Figures of a study and one self-contained page about it, ``memorisation.html``.

    What the record has nothing of is left out: states and fates without energies, times without
    looks during training, halves, exemplars that are no images.

    Args:
        record: what ``study.json`` holds.
        folder: of the study, with its runs.

    Returns:
        Sentences of what was found and where it was written.
    """
    drawn = _figures(record, folder)
    found = findings(record)
    environment = Environment(
        loader=FileSystemLoader([HERE, PAGE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    text = environment.get_template("memorisation.html.jinja").render(
        style=(PAGE / "page.css").read_text(encoding="utf-8"),
        findings=found,
        pictures={name: picture_uri(folder / f"{name}.png") for name in drawn},
        energies=has_energies(record),
        shares=[tables.shares(record, space) for space in record["summary"]],
        crossings=tables.crossings(record),
        thresholds=tables.thresholds(record),
        duplicates=tables.duplicates(record),
        states=tables.states(record),
        exact=tables.exact(record),
        fates=tables.fates(record),
        times=tables.times(record) if was_watched(record) else None,
        settings=tables.settings(record),
    )
    write_whole(folder / NAME, _lowered(text).encode())
    written = f"Written: {folder / NAME}, study.json and {len(drawn)} figures beside it."
    return [*(said for part in found for said in part), written]


def _lowered(page: str) -> str:
    """With the indices of K_c, δ_m and δ_s set low, between tags."""
    return re.sub(
        r"(?<=>)[^<>]+(?=<)", lambda text: re.sub(r"([Kδ])_(\w)", r"\1<sub>\2</sub>", text[0]), page
    )


def _figures(record: Record, folder: Path) -> list[str]:
    """Names of those that were drawn, without their suffix; earlier ones of others are removed."""
    energies = has_energies(record)
    plots: dict[str, tuple[bool, Callable[[Record, Path], None]]] = {
        "shares": (True, shares_plot),
        "states": (energies, states_plot),
        "rests": (was_scanned(record), rests_plot),
        "times": (was_watched(record), times_plot),
        "fates": (bool(counted(record)), fates_plot),
        "halves": (bool(record["halves"]), halves_plot),
    }
    drawn = []
    for name, (there, plot) in plots.items():
        file = folder / f"{name}.png"
        if there:
            plot(record, file)
            drawn.append(name)
        else:
            file.unlink(missing_ok=True)
    if exemplars_plot(record, folder, folder / "exemplars.png"):
        drawn.append("exemplars")
    return drawn
