"""The tables of a study's page."""

import shlex
from typing import Any

from energydiff.numerals import fixed, number
from energydiff.report.memorisation.fates import TOLD, counted
from energydiff.report.memorisation.numbers import duration, exact_percent, limits, share_limits
from energydiff.report.memorisation.resting import of_data, resting
from energydiff.report.memorisation.rows import PHASES, Record, main_runs, means, name, sizes
from energydiff.report.page.tables import Table

PAIRS = 20  # of duplicates that are listed
SEEDS_95 = "mean over seeds (95 % interval)"


def shares(record: Record, space: str) -> Table:
    """Of samples, beside held-out images under the same rule, and copies by d₁/d₂."""
    rows = []
    for row in record["summary"][space]["shares"]:
        cells = [f"{row['images']:,}"]
        for phase in PHASES:
            cells.append(share_limits(row["samples"][phase]))
            cells.append(share_limits(row["held_out"][phase] | {"low": None}))
        runs = main_runs(record, row["images"])
        for kind in ("samples", "held_out"):
            copies = means([[run["spaces"][space][kind]["copies"]] for run in runs])[0]
            cells.append("–" if copies != copies else fixed(100 * copies, 1))
        rows.append(cells)
    head = ["K"]
    for title in (*PHASES, "d₁/d₂ < 1/3"):
        head += [title, "held-out"]
    where = "pixels" if space == "pixels" else f"features of {space}"
    return Table(
        f"Shares in {where}, per cent, {SEEDS_95}; beside each the held-out images under the same"
        " rule. Limits are cut off at 0 and 100.",
        head,
        rows,
    )


def crossings(record: Record) -> Table:
    """K_c and the spurious peak in every space."""
    rows = []
    for space, found in record["summary"].items():
        peak = found["peak"]
        rows.append(
            [
                space,
                limits(found["crossing"]["mean"]),
                ", ".join(number(value) for value in found["crossing"]["of_seeds"]),
                f"{peak['images']:,}",
                limits(peak["difference"], 100),
                limits(peak["widened"], 100),
            ]
        )
    return Table(
        "Where the memorised share crosses half, and the largest spurious share less that of"
        " held-out images, in percentage points; the second interval is widened for having chosen"
        " the size.",
        ["space", "K_c", "of each seed", "peak at K", "difference", "widened"],
        rows,
    )


def thresholds(record: Record) -> Table:
    """δ_m and δ_s of every space."""
    rows = [
        [space, number(rule["memorised"]), number(rule["spurious"]), f"{rule['block']:,}"]
        for space, rule in record["rules"].items()
    ]
    share = exact_percent(record["looks"]["share"])
    return Table(
        f"Thresholds, which {share} of held-out images are below: δ_m of the distance to the"
        " nearest training image, δ_s of that to the nearest other sample in blocks of n.",
        ["space", "δ_m", "δ_s", "n"],
        rows,
    )


def duplicates(record: Record) -> Table:
    """The nearest pairs of training images, if there are any below δ_m."""
    found = record["duplicates"]
    rows = [[f"{a} and {b}", number(d)] for a, b, d in found["pairs"][:PAIRS]]
    shown = f"; the nearest {len(rows)}" if found["near"] > len(rows) else ""
    return Table(
        f"Of {found['searched']:,} training images {found['equal']:,} equal another, and"
        f" {found['near']:,} pairs of the others are nearer than δ_m{shown}.",
        ["pair", "distance"],
        rows,
    )


def states(record: Record) -> Table:
    """Where exemplars came to rest, over all sizes and seeds."""
    rows = [
        [
            name(phase),
            f"{row.exemplars:,}",
            f"{row.converged:,}",
            f"{row.minima:,}",
            f"{row.elsewhere:,}",
            number(row.residual, 2),
            number(row.margin),
        ]
        for phase, row in resting(record).items()
    ]
    return Table(
        f"Where exemplars come to rest on V(·, σ = {record['sigma']:.3g}), over all sizes and"
        " seeds. A certified minimum has Morse index 0, and a critical point of that index is sure"
        " to be near; the margin is its lowest eigenvalue of ∇²V.",
        [
            *("samples", "let down", "critical points", "certified minima"),
            *("no training image", "largest ‖∇V‖", "least margin"),
        ],
        rows,
    )


def exact(record: Record) -> Table:
    """Minima of the training sets' own energy."""
    rows = [
        [f"{row.size:,}", *(f"{n:,}" for n in (row.images, row.alone, row.spurious, row.minima))]
        for row in of_data(record)
    ]
    return Table(
        f"Minima of the exact energy of the training sets at σ = {record['sigma']:.3g}, summed"
        " over seeds: images, those with a minimum to themselves, minima that several images share"
        " or none leads to, and all that were found from the images and the exemplars.",
        ["K", "images", "alone", "spurious", "minima"],
        rows,
    )


def fates(record: Record) -> Table:
    """What became of spurious minima."""
    rows = [
        [f"{a:,} → {b:,}", *(f"{counts[fate]:,}" for fate in TOLD), f"{counts.total():,}"]
        for (a, b), counts in counted(record).items()
    ]
    return Table(
        "What spurious minima are in the model of the next size, over all seeds.",
        ["K", *TOLD.values(), "all"],
        rows,
    )


def times(record: Record) -> Table:
    """τ of every size and how it grows."""
    found = record["times"]
    rows = []
    for size in sizes(record):
        runs = [row for row in found["runs"] if row["images"] == size]
        cells = [
            ", ".join("–" if row[kind] is None else f"{row[kind]:,.0f}" for row in runs)
            for kind in ("memorising", "generalising")
        ]
        rows.append([f"{size:,}", *cells])
    return Table(
        f"Images seen when {exact_percent(found['share'])} of samples are memorised, and when the"
        " held-out loss is first within 5 % of its least, of each seed.",
        ["K", "memorising", "generalising"],
        rows,
    )


def settings(record: Record) -> list[Table]:
    """What was asked for and what it took."""
    design, looks, data = (dict(record[part]) for part in ("design", "looks", "data"))
    rows = {
        "training images": f"{data['train']:,}, {data['held_out']:,} held out",
        "sizes K": _told(design["sizes"]),
        "seeds": _told(design["seeds"]),
        "halves": _told(design["halves"]),
        "looked at while training": _told(design["watch"]) + " images seen",
        "samples of such a look": f"{design['watched']:,}",
        "σ of states": f"{record['sigma']:.3g}",
        "trainings": f"{len(record['runs']):,}",
        "processor time": duration(record["processor_seconds"]),
        "energydiff fit": shlex.join(record["fit"]),
    }
    if not design["watch"]:
        rows["looked at while training"] = "never"
        del rows["samples of such a look"]
    seen = {told: _told(looks[key]) for key, told in _LOOKS.items()}
    return [
        Table("The study", ["", ""], list(map(list, rows.items())), text=True),
        Table("How runs were looked at", ["", ""], list(map(list, seen.items())), text=True),
    ]


def _told(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_told(item) for item in value) or "none"
    return f"{value:,}" if isinstance(value, int | float) else str(value)


_LOOKS = {
    "samples": "samples",
    "features": "feature spaces",
    "exemplars": "exemplars of a class",
    "trials": "trials of each noise",
    "sampler": "sampler",
    "steps": "steps",
    "batch_size": "samples at a time",
}
