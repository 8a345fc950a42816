"""Numbers, verdicts and certificates in words: the one place that knows how they read."""

import math
from collections.abc import Mapping
from typing import Any

from energydiff.evaluation.records import Comparison, Interval
from energydiff.sampling import Trace, certify

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


def certificate(record: Mapping[str, Any], value: str = "V") -> str:
    """A certificate (:meth:`~energydiff.sampling.Certificate.as_dict`) in words, from its verb.

    ``value`` is what must fall.
    """
    course = _course(record, value, f"{record['steps']:,} steps")
    if record["holds"]:
        return f"holds: {course}."
    if record["holds"] is None:
        return f"makes no claim: {CLAIMS[record['claim']]}; {course}."
    return (
        f"fails: {course}, in {record['rising_samples']:,} of the samples, {_worst(record)}"
        f" at σ = {number(record['worst_sigma'])}"
        f" (sample {record['worst_sample']}, step {record['worst_step']})."
    )


def caption(trace: Trace, value: str = "V") -> str:
    """The certificate of a trace in a few words, as of a figure."""
    record, samples = certify(trace).as_dict(), trace.free_energy.shape[1]
    course = _course(record, value, f"{record['steps']:,} steps of {samples:,} samples")
    return f"{course}, {_worst(record)}" if record["holds"] is False else course


def counts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The numbers of a certificate, each after its name."""
    return [
        ("steps examined", f"{record['steps']:,}"),
        ("rises of V", f"{record['rises']:,}"),
        ("rises of the descent part", f"{record['descent_rises']:,}"),
        ("rises of the landscape part", f"{record['landscape_rises']:,}"),
        ("samples with a rise", f"{record['rising_samples']:,}"),
        ("steps short of the descent bound", f"{record['bound_misses']:,}"),
        ("proposals refused", f"{record['fallbacks']:,}"),
        ("worst rise in one step", number(record["worst_rise"])),
        ("at σ", number(record["worst_sigma"])),
        ("allowed for rounding, at most", number(record["tolerance"])),
        ("a pass of the descent part is", CLAIMS[record["descent_claim"]]),
        ("a pass of the landscape part is", CLAIMS[record["landscape_claim"]]),
    ]


def _course(record: Mapping[str, Any], value: str, where: str) -> str:
    if record["holds"]:
        return f"{value} fell at all {where} ({CLAIMS[record['claim']]})"
    share = number(100 * record["rises"] / record["steps"], 2)
    return f"{value} rose at {record['rises']:,} of {where} ({share}{TIED}%)"


def _worst(record: Mapping[str, Any]) -> str:
    worst = record["worst_rise"]  # None where a file of JSON could not hold what is not finite
    finite = worst is not None and math.isfinite(worst)
    return f"at worst {f'by {number(worst)}' if finite else 'to a value that is not finite'}"
