"""How numbers of a study read."""

from collections.abc import Mapping

from energydiff.evaluation.records import Interval
from energydiff.numerals import TIED, fixed, number
from energydiff.report.words import interval

Range = Mapping[str, float | None]  # mean, low, high; of one seed the mean alone


def exact_percent(share: float) -> str:
    """Of a share that was set, not measured."""
    return f"{100 * share:g}{TIED}%"


def percent(share: float | None) -> str:
    return "–" if share is None else f"{fixed(100 * share, 1)}{TIED}%"


def limits(value: Range, scale: float = 1.0) -> str:
    """The mean, and if there is one its interval in brackets, both ``scale`` times as large."""
    mean, low, high = (value[side] for side in ("mean", "low", "high"))
    if mean is None:
        return "–"
    if low is None or high is None:
        return number(scale * mean)
    middle, ends = interval(Interval(scale * mean, scale * low, scale * high))
    return f"{middle} ({ends})"


def share_limits(value: Range) -> str:
    """A share in per cent with its interval, cut off at 0 and 100."""
    mean, low, high = (value[side] for side in ("mean", "low", "high"))
    if mean is None:
        return "–"
    if low is None or high is None:
        return fixed(100 * mean, 1)
    ends = (fixed(100 * min(1, max(0, end)), 1) for end in (low, high))
    return f"{fixed(100 * mean, 1)} ({' to '.join(ends)})"


def limited(value: Range, scale: float = 1.0) -> str:
    """As in ``0.2 to 0.4``; nothing without an interval."""
    mean, low, high = (value[side] for side in ("mean", "low", "high"))
    if mean is None or low is None or high is None:
        return ""
    return interval(Interval(scale * mean, scale * low, scale * high))[1]


def in_95(value: Range, scale: float = 1.0) -> str:
    """As in ``95 % interval 0.2 to 0.4``; nothing without one."""
    ends = limited(value, scale)
    return f"95{TIED}% interval {ends}" if ends else ""


def duration(seconds: float) -> str:
    """Processor time as a person would say it."""
    if seconds < 90:
        return f"{number(seconds, 2)} seconds"
    if seconds < 90 * 60:
        return f"{number(seconds / 60, 2)} minutes"
    if seconds < 48 * 3600:
        return f"{number(seconds / 3600, 3)} hours"
    return f"{number(seconds / 86400, 3)} days"


def listed(parts: list[str]) -> str:
    """As in ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def plural(count: int, word: str, more: str = "") -> str:
    """As in ``1 seed`` and ``3 seeds``."""
    return f"{count:,} {word if count == 1 else more or word + 's'}"
