"""Numbers and verdicts of a comparison in words: the one place that knows how they read."""

import math

from energydiff.evaluation.records import Comparison, Interval
from energydiff.numerals import TIED, fixed, number


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
