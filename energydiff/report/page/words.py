"""Numbers and verdicts in words."""

import math
from collections.abc import Mapping
from typing import Any

from energydiff.evaluation.records import Comparison, Interval

CLAIMS = {
    "proved": "proved by the construction",
    "enforced": "enforced by the sampler",
    "observed": "observed, not guaranteed",
    "stochastic": "noise was added, which raises V",
}
TIED = "\N{NO-BREAK SPACE}"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float | None, digits: int = 3) -> str:
    """A value to ``digits`` significant digits; a dash for none."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    power = math.floor(math.log10(abs(value)))
    if not -4 <= power <= 6:
        mantissa = fixed(value / 10.0**power, digits - 2)
        return f"{mantissa}·10{str(power).translate(_RAISED)}"
    return fixed(value, digits - 1 - power)


def fixed(value: float, decimals: int) -> str:
    """A value to some decimals, with a true minus."""
    text = f"{value:,.{max(0, decimals)}f}"
    return text.replace("-", "−") if float(text.replace(",", "")) else text.lstrip("-")


def numbers(*values: float | None) -> list[str]:
    """Values of one table row: as many decimals for all, where their sizes allow it."""
    sizes = [abs(v) for v in values if v is not None and math.isfinite(v) and v]
    if not sizes or max(sizes) > 100 * min(sizes) or not 1e-4 <= min(sizes) <= max(sizes) < 1e7:
        return [number(value) for value in values]
    decimals = 2 - math.floor(math.log10(min(sizes)))
    return [number(v) if v is None or not math.isfinite(v) else fixed(v, decimals) for v in values]


def interval(value: Interval) -> tuple[str, str]:
    """The mean, and the interval as ``low to high``, to two digits of the interval's width."""
    width = value.high - value.low
    if not math.isfinite(width):
        return number(value.mean), f"{number(value.low)} to {number(value.high)}"
    scale = width or abs(value.mean) or 1.0
    decimals = 1 - math.floor(math.log10(scale))
    mean, low, high = (fixed(v, decimals) for v in (value.mean, value.low, value.high))
    return mean, f"{low} to {high}"


def verdict(comparison: Comparison) -> str:
    """The whole comparison in one sentence."""
    a, b, difference = comparison.a.name, comparison.b.name, comparison.frechet
    n = f"n = {comparison.provenance.samples:,}".replace(" ", TIED)
    mean, limits = interval(difference)
    mean, limits = f"A − B = {mean}".replace(" ", TIED), limits.replace(" ", TIED)
    basis = f"{mean}, 95{TIED}% interval {limits} over {comparison.over}, {n}"
    match comparison.verdict:
        case "not separable":
            sentence = f"{a} and {b} cannot be told apart by {distance(comparison)} ({basis})"
        case better_or_worse:
            sentence = f"{a} is {better_or_worse} than {b} by {distance(comparison)} ({basis})"
    if comparison.controls is not None and comparison.controls.failures():
        sentence += ", but a control failed, so do not lean on it"
    return sentence + "."


def distance(comparison: Comparison) -> str:
    """What the Fréchet distance may be called: FID only with the published network."""
    return "FID" if comparison.provenance.makes_fid else "Fréchet distance"


def certificate(record: Mapping[str, Any]) -> str:
    """A certificate (:meth:`~energydiff.sampling.Certificate.as_dict`) in words, from its verb."""
    steps, rises, claim = record["steps"], record["rises"], CLAIMS[record["claim"]]
    if record["holds"]:
        return f"holds: V fell at all {steps:,} steps ({claim})."
    share = f"V rose at {rises:,} of {steps:,} steps ({number(100 * rises / steps, 2)}{TIED}%)"
    if record["holds"] is None:
        return f"makes no claim: {claim}; {share}."
    worst = record["worst_rise"]  # None where a file of JSON could not hold what is not finite
    finite = worst is not None and math.isfinite(worst)
    return (
        f"fails: {share}, in {record['rising_samples']:,} of the samples, at worst"
        f" {f'by {number(worst)}' if finite else 'to a value that is not finite'}"
        f" at σ = {number(record['worst_sigma'])}"
        f" (sample {record['worst_sample']}, step {record['worst_step']})."
    )
