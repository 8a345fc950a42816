"""What a study found, in plain sentences."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from energydiff.numerals import TIED, fixed, number
from energydiff.report.memorisation.fates import counted
from energydiff.report.memorisation.numbers import (
    exact_percent,
    in_95,
    limited,
    listed,
    percent,
    plural,
)
from energydiff.report.memorisation.resting import of_data, resting
from energydiff.report.memorisation.rests import rested
from energydiff.report.memorisation.rows import Record, has_energies, name, sizes

SPACE = "pixels"
FATES_TOLD = {
    "persists": "persist",
    "split": "split into several",
    "valley": "became valleys",
    "memory": "became memories",
    "gone": "are gone",
}


def findings(record: Record) -> list[list[str]]:
    """Paragraphs of sentences: of shares, of times and halves, of the energy."""
    summary = record["summary"][SPACE]
    shares = [
        _shares(summary["shares"]),
        _crossing(summary, len(sizes(record))),
        _peak(summary["peak"], len(sizes(record))),
    ]
    beside = [_times(record["times"]), _halves(record)]
    if has_energies(record):
        energy = [_rests(record), _minima(record), _fates(record), _of_data(record)]
    else:
        energy = ["The models have no energy, so there are no states and no minima to look at."]
    paragraphs = (shares, beside, energy)
    tied = f"{TIED}={TIED}"
    return [
        [said.replace(" = ", tied) for said in part if said] for part in paragraphs if any(part)
    ]


def _shares(rows: list[dict[str, Any]]) -> str:
    first, last = rows[0], rows[-1]
    shares = [percent(row["samples"]["memorised"]["mean"]) for row in (first, last)]
    if len(rows) == 1:
        return f"Of the samples {shares[0]} are memorised at K = {first['images']:,}."
    held_out = percent(last["held_out"]["memorised"]["mean"])
    moved = last["samples"]["memorised"]["mean"] - first["samples"]["memorised"]["mean"]
    verb = "falls" if moved < 0 else "rises" if moved > 0 else "goes"
    return (
        f"The memorised share of samples {verb} from {shares[0]} at K = {first['images']:,}"
        f" training images to {shares[1]} at K = {last['images']:,}, where {held_out} of held-out"
        " images pass for memorised under the same rule."
    )


def _crossing(summary: Mapping[str, Any], count: int) -> str:
    mean, seeds = summary["crossing"]["mean"], summary["crossing"]["of_seeds"]
    known = [number(value) for value in seeds if value is not None]
    if not known:
        most = max(row["samples"]["memorised"]["mean"] for row in summary["shares"])
        never = "stays above half at every size" if most >= 0.5 else "is nowhere above half"
        return f"It {never}, so there is no K_c between the sizes." if count > 1 else ""
    if len(seeds) == 1:
        return f"It crosses half at K_c = {known[0]}, of a single seed."
    basis = ", ".join(filter(None, [in_95(mean), f"of each seed {listed(known)}"]))
    said = f"It crosses half at K_c = {number(mean['mean'])} ({basis})"
    if len(known) < len(seeds):
        said += f", of {len(known)} of {len(seeds)} seeds: in the others it never does"
    return f"{said}."


def _peak(peak: Mapping[str, Any], count: int) -> str:
    difference, widened = peak["difference"], peak["widened"]
    points = number(100 * difference["mean"])
    if difference["mean"] <= 0:
        return "At no size are more samples spurious than held-out images under the same rule."
    said = (
        "The spurious share is largest beside that of held-out images at"
        f" K = {peak['images']:,}: {points} percentage points more"
    )
    if difference["low"] is None:
        return (
            f"{said}, in a single seed, so there is no interval and it is not shown that another"
            " seed would do the same."
        )
    said += (
        f" ({in_95(difference, 100)} over {peak['seeds']} seeds; {limited(widened, 100)} once"
        f" widened for having chosen the largest of {plural(count, 'size')})"
    )
    if peak["above_control_widened"]:
        return f"{said}, above the control by either interval."
    if peak["above_control"]:
        return (
            f"{said}: above the control if the size had been chosen beforehand, but not shown to"
            " be once the interval is widened."
        )
    return f"{said}, which is not shown to be above the control: the interval holds 0."


def _times(times: Mapping[str, Any]) -> str:
    if not times["runs"]:
        return ""
    reached = [row for row in times["runs"] if row["memorising"] is not None]
    share, fit = exact_percent(times["share"]), times["fits"]["memorising"]
    said = (
        f"The memorised share reaches {share} in {len(reached)} of"
        f" {plural(len(times['runs']), 'training')}"
    )
    if not reached:
        return f"In no training does the memorised share reach {share} while it is watched."
    if fit is None:
        return f"{said}, at too few sizes to say how the time to it grows with K."
    return (
        f"{said}, after {number(fit['rate'])} images seen for each training image (fitted to the"
        f" {plural(len(fit['sizes']), 'size')} where every seed got there, R² ="
        f" {number(fit['r2'])}); a free exponent of K comes out as {number(fit['exponent'])}"
        f" (R² = {number(fit['exponent_r2'])})."
    )


def _halves(record: Record) -> str:
    rows = record["halves"]
    if not rows:
        return ""
    told = []
    for row in (rows[0], rows[-1])[: len(rows)]:
        levels, sigma = row["sigma"], record["sigma"]
        at = min(range(len(levels)), key=lambda i: abs(levels[i] - sigma))
        told.append(
            f"at K = {row['images']:,} their denoisers differ by {number(row['denoisers'][at])}"
            f" times their error at σ = {levels[at]:.3g} and samples from the same noise have"
            f" a cosine of {fixed(row['samples'], 2)} (by chance {fixed(row['chance'], 2)})"
        )
    return f"Two models of disjoint halves: {'; '.join(told)}."


def _rests(record: Record) -> str:
    """Over all sizes, of what was no copy when it was generated."""
    told = []
    for phase in ("spurious", "generalised"):
        found = rested(record, phase)
        if found is not None:
            home, away = found["home"], found["spurious"]
            at = [f"{found['sigma'][int(part.argmax())]:.3g}" for part in (home, away)]
            told.append(
                f"of {plural(found['count'], phase + ' sample')} at most {home.max()} come to rest"
                f" at a training image (at σ = {at[0]}) and at most {away.max()} elsewhere"
                f" (at σ = {at[1]})"
            )
    return f"Let down at a fixed noise, {'; '.join(told)}." if told else ""


def _minima(record: Record) -> str:
    rows = resting(record)
    told = [
        f"{row.minima} of {plural(row.exemplars, name(kind) + ' sample')}"
        for kind, row in rows.items()
    ]
    said = (
        f"Let down on V at σ = {record['sigma']:.3g}, {listed(told)} come to rest in a"
        " certified minimum"
    )
    spurious = rows.get("spurious")
    if spurious is None:
        return f"{said}; there are no spurious samples among them."
    return (
        f"{said}; of the {spurious.minima} of spurious samples {spurious.elsewhere} are further"
        " than δ_m from every training image."
    )


def _fates(record: Record) -> str:
    counts = sum(counted(record).values(), Counter[str]())
    told = [f"{counts[fate]} {words}" for fate, words in FATES_TOLD.items() if counts[fate]]
    if not told:
        return ""
    return f"Of {counts.total()} spurious minima followed to the next size {listed(told)}."


def _of_data(record: Record) -> str:
    rows = of_data(record)
    first, last = rows[0], rows[-1]
    spurious = sum(row.spurious for row in rows)
    told = [
        f"{row.alone:,} of {row.images:,} images have a minimum to themselves at K = {row.size:,}"
        for row in (first, last)[: len(rows)]
    ]
    return (
        f"In the exact energy of the training sets themselves {listed(told)}; minima that"
        f" several images share or none leads to: {spurious:,}."
    )
