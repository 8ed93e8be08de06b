"""Numbers as people read them: short, with a unit, and the same everywhere a report shows them."""

import math
from typing import TypeGuard

_SPACE = "\u00a0"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_MISSING = "–"


def is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is a finite number (a log may hold null or NaN where a run went wrong)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def count(value: float | None) -> str:
    """A count: exact below 100,000 (`81,920`), then three digits and K, M, B or T (`1.23 M`)."""
    if not is_number(value):
        return _MISSING
    if abs(value) < 100_000:
        return f"{value:,.0f}"
    for power, suffix in ((3, "K"), (6, "M"), (9, "B"), (12, "T")):
        scaled = float(f"{value / 10**power:.3g}")
        if abs(scaled) < 1000 or suffix == "T":
            return f"{scaled:,.3f}".rstrip("0").rstrip(".") + _SPACE + suffix
    raise AssertionError("the last suffix takes every value")


def decimal(value: float | None, places: int = 3) -> str:
    """A measured value with a fixed number of decimals, so that columns line up."""
    if not is_number(value):
        return _MISSING
    text = f"{value:,.{places}f}"
    return text.replace("-", "−") if float(text.replace(",", "")) else text.replace("-", "")


def significant(value: float | None, digits: int = 3) -> str:
    """A value of unknown size with `digits` significant digits, never in exponent form between 1e-5 and 1e6."""
    if not is_number(value):
        return _MISSING
    if value and not 1e-5 <= abs(value) < 1e6:
        return scientific(value, digits)
    if not value:
        return "0"
    rounded = float(f"{value:.{digits}g}")
    places = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    text = f"{rounded:,.{places}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "−")


def scientific(value: float | None, digits: int = 2) -> str:
    """A very large or small value: `1.2 × 10¹⁵`."""
    if not is_number(value):
        return _MISSING
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    return f"{mantissa}{_SPACE}×{_SPACE}10{str(int(exponent)).translate(_SUPERSCRIPTS)}".replace("-", "−")


def percent(share: float | None, places: int = 1) -> str:
    """A share of one as a percentage: `98.0 %`; what would round to nothing is `< 0.1 %`."""
    smallest = 10**-places
    if is_number(share) and 0 < share * 100 < smallest:
        return f"<{_SPACE}{smallest}{_SPACE}%"
    return f"{share * 100:.{places}f}{_SPACE}%" if is_number(share) else _MISSING


def duration(seconds: float | None) -> str:
    """A length of time in its two largest units: `3 min 12 s`, `1 h 4 min`."""
    if not is_number(seconds):
        return _MISSING
    assert seconds is not None
    if seconds < 1:
        return f"{seconds * 1000:.0f}{_SPACE}ms"
    if seconds < 10:
        return f"{seconds:.1f}{_SPACE}s"
    whole = round(seconds)
    for size, unit, smaller_size, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            parts = [f"{whole // size}{_SPACE}{unit}"]
            if rest := whole % size // smaller_size:
                parts.append(f"{rest}{_SPACE}{smaller}")
            return " ".join(parts)
    return f"{whole}{_SPACE}s"


def interval(value: float | None, low: float | None, high: float | None, places: int = 3) -> str:
    """An estimate and its interval: `0.812 [0.790, 0.834]`."""
    if not (is_number(low) and is_number(high)):
        return decimal(value, places)
    return f"{decimal(value, places)} [{decimal(low, places)},{_SPACE}{decimal(high, places)}]"
