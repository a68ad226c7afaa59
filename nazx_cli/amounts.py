"""Sizes and counts as people write them: ``8GB``, ``100k``, ``1M``, ``100,000``."""

from __future__ import annotations

import re

from nazx_cli.errors import UsageError

_NUMBER = re.compile(r"(\d{1,3}(?:[,_]\d{3})+|\d+)?(\.\d+)?(e\d{1,3})?", re.IGNORECASE)
_COUNTS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
_BYTES = {"": 1, "b": 1} | {
    f"{prefix}{suffix}": base**power
    for power, prefix in enumerate("kmgt", 1)
    for suffix, base in (("", 1000), ("b", 1000), ("ib", 1024))
}
_LEAST_BARE = 1000  # fewer bytes than this were meant to have a unit


def parse_count(text: str, least: int = 1) -> int:
    """A number of things such as ``100k``, ``1.5M``, ``100,000`` or ``1e5``.

    ``UsageError`` where it is none, no whole number, or less than ``least``.
    """
    found = _amount(text, _COUNTS)
    if found is None or found != int(found):
        raise UsageError(f"{text!r} is not a whole number", "write it as 4096, 100k or 1M")
    if found < least:
        raise UsageError(f"{text} is too few", f"give {least:,} or more")
    return int(found)


def parse_bytes(text: str) -> int:
    """Bytes of a size such as ``8GB``, ``512 MiB`` or ``6e9``: kB, MB, GB, TB are powers of 1,000,
    KiB, MiB, GiB, TiB of 1,024; a bare number is bytes, where it is not so small that a unit must
    be missing. ``UsageError`` where it is no size, or not above 0."""
    found = _amount(text, _BYTES)
    if found is None or found < 1:
        raise UsageError(f"{text!r} is no size of memory", "write it as 8GB, 12GiB or 600MB")
    if found < _LEAST_BARE:
        number = text.strip().lower().removesuffix("b").strip()
        raise UsageError(f"{text!r} is no size of memory: the unit is missing", f"write {number}GB")
    return int(found)


def _amount(text: str, units: dict[str, int]) -> float | None:
    """The number times its unit; None where ``text`` is no such thing."""
    written = text.strip()
    number = _NUMBER.match(written)
    assert number is not None  # it may be empty
    factor = units.get(written[number.end() :].strip().lower())
    digits = number.group().replace(",", "").replace("_", "")
    if factor is None or not digits or digits[0] in "eE":
        return None
    found = float(digits) * factor
    return found if found < float("inf") else None
