"""Sizes as people write them: ``8GB``, ``512 MiB``, ``6e9``."""

from __future__ import annotations

import re

from nazx_cli.errors import UsageError

_FACTORS = {"": 1, "b": 1} | {
    f"{prefix}{suffix}": base**power
    for power, prefix in enumerate("kmgt", 1)
    for suffix, base in (("", 1000), ("b", 1000), ("ib", 1024))
}


def parse_bytes(text: str) -> int:
    """Bytes of a size: kB, MB, GB, TB are powers of 1,000, KiB, MiB, GiB, TiB of 1,024; a bare
    number is bytes. ``UsageError`` where it is none, or not above 0."""
    match = re.fullmatch(r"\s*([\d.]+(?:e\d+)?)\s*([a-z]*)\s*", text.lower())
    try:
        size = int(float(match[1]) * _FACTORS[match[2]]) if match else 0
    except (ValueError, KeyError, OverflowError):
        size = 0
    if size <= 0:
        raise UsageError(f"{text!r} is no size of memory", "write it as 8GB, 12GiB or 600MB")
    return size
