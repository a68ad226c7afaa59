"""Times, counts, sizes and long names, as short as a line needs them."""

from __future__ import annotations

import time
from datetime import timedelta

_UNITS = ("bytes", "kB", "MB", "GB", "TB")


class Stopwatch:
    """Runs from when it is made."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def __str__(self) -> str:
        return duration(time.perf_counter() - self._started)


def duration(seconds: float) -> str:
    """``<1 ms``, ``3 ms``, ``1.2 s``, ``2 min 5 s``."""
    if seconds < 0.001:
        return "<1 ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def ago(age: timedelta) -> str:
    """``just now``, ``5 min ago``, ``30 h ago``, ``2 days ago``."""
    minutes = int(age.total_seconds() // 60)
    if minutes < 1:
        return "just now"
    if minutes < 60:
        return f"{minutes} min ago"
    if minutes < 48 * 60:
        return f"{minutes // 60} h ago"
    return f"{minutes // (24 * 60):,} days ago"


def counted(number: int, thing: str) -> str:
    """``1 turn``, ``2 turns``."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def shortened(name: str, width: int) -> str:
    """``name`` in at most ``width`` characters, its end kept: that is what tells files apart."""
    return name if len(name) <= width else f"…{name[len(name) - width + 1 :]}"


def size_text(nbytes: float) -> str:
    """``269 MB``: three digits that count, in powers of 1,000."""
    unit = 0
    while nbytes >= 999.5 and unit < len(_UNITS) - 1:
        nbytes /= 1000
        unit += 1
    digits = 0 if unit == 0 or nbytes >= 99.95 else 1 if nbytes >= 9.995 else 2
    return f"{nbytes:.{digits}f} {_UNITS[unit]}"


def rate_text(per_second: float) -> str:
    """``57/s`` or ``4.5/s``: how many in a second."""
    return f"{per_second:,.0f}/s" if per_second >= 9.95 else f"{per_second:.1f}/s"
