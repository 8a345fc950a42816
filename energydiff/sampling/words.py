"""A certificate in words: the one place that knows how it reads."""

import math
from typing import TYPE_CHECKING

from energydiff.numerals import TIED, number

if TYPE_CHECKING:
    from energydiff.sampling.certificate import Certificate

CLAIMS = {
    "proved": "proved by the construction",
    "enforced": "enforced by the sampler",
    "observed": "observed, not guaranteed",
    "stochastic": "noise was added, which raises V",
}
NOT_QUALITY = "nothing of the quality of the samples"


def sentences(certificate: "Certificate") -> str:
    """What it claims, and on the next line what was counted; both from the verb."""
    return f"{verdict(certificate)}\n{details(certificate)}"


def verdict(certificate: "Certificate", value: str = "V") -> str:
    """What is claimed and what is not, from the verb; ``value`` is what must fall."""
    c = certificate
    if c.holds:
        return (
            f"holds: {value} fell, or stayed within rounding, at every step ({CLAIMS[c.claim]});"
            f" this says that each step descended, and {NOT_QUALITY}."
        )
    rose = _rose(c, value, "steps")
    if c.holds is None:
        return (
            f"makes no claim: {CLAIMS[c.claim]}, and {rose}, which says whether steps descended,"
            f" and {NOT_QUALITY}."
        )
    if c.claim == "enforced":
        rose += ", those at which the sampler could not enforce that it falls"
    return (
        f"fails: {rose}, {_worst(c)} at σ = {number(c.worst_sigma)} (sample {c.worst_sample},"
        f" step {c.worst_step}); this says that not every step descended, and {NOT_QUALITY}."
    )


def details(certificate: "Certificate") -> str:
    """How many steps were looked at, which part of them rose, and what passes for rounding."""
    c = certificate
    return (
        f"Of {c.steps:,} steps ({c.steps // c.samples:,} of each of {c.samples:,} samples)"
        f" {c.rises:,} raised V, in {c.rising_samples:,} of the samples. A step's change of V is"
        " the sum of two parts, and one may rise where the other falls by more: the descent part,"
        f" the move at a fixed σ, rose at {c.descent_rises:,} of them, and the landscape part,"
        f" the change of σ at a fixed x, at {c.landscape_rises:,}. A rise is what floating-point"
        " rounding cannot explain: V is a difference of terms that grow with σ², so up to"
        f" {number(c.tolerance)} is put down to rounding at σ = {number(c.tolerance_sigma)}, and"
        f" {number(c.final_tolerance)} in the last step."
    )


def caption(certificate: "Certificate", value: str = "V") -> str:
    """In a few words, as of a figure."""
    c = certificate
    where = f"steps of {c.samples:,} samples"
    if c.holds:
        return f"{value} fell at all {c.steps:,} {where} ({CLAIMS[c.claim]})"
    course = _rose(c, value, where)
    return course if c.holds is None else f"{course}, {_worst(c)}"


def counts(certificate: "Certificate") -> list[tuple[str, str]]:
    """Its numbers, each after its name."""
    c = certificate
    return [
        ("steps examined", f"{c.steps:,}"),
        ("rises of V", f"{c.rises:,}"),
        ("rises of the descent part", f"{c.descent_rises:,}"),
        ("rises of the landscape part", f"{c.landscape_rises:,}"),
        ("samples with a rise", f"{c.rising_samples:,}"),
        ("steps short of the descent bound", f"{c.bound_misses:,}"),
        ("proposals refused", f"{c.fallbacks:,}"),
        ("worst rise in one step", number(c.worst_rise)),
        ("at σ", number(c.worst_sigma)),
        ("allowed for rounding, at most", number(c.tolerance)),
        ("at σ", number(c.tolerance_sigma)),
        ("allowed for rounding in the last step", number(c.final_tolerance)),
        ("computed in", c.precision),
        ("a pass of the descent part is", CLAIMS[c.descent_claim]),
        ("a pass of the landscape part is", CLAIMS[c.landscape_claim]),
    ]


def _rose(c: "Certificate", value: str, where: str) -> str:
    share = number(100 * c.rises / c.steps, 2)
    return f"{value} rose at {c.rises:,} of {c.steps:,} {where} ({share}{TIED}%)"


def _worst(c: "Certificate") -> str:
    finite = math.isfinite(c.worst_rise)
    return f"at worst {f'by {number(c.worst_rise)}' if finite else 'to a value that is not finite'}"
