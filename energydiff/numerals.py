"""Numbers as people read them."""

import math

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
