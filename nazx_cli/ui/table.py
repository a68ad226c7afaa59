"""Plain columns, the same in a terminal and in a pipe."""

from __future__ import annotations

from collections.abc import Sequence

from nazx_cli.documents.control import strip_control

_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """``rows`` in columns as wide as they need, one line each; ``right`` are aligned right."""
    if not rows:
        return ""
    cells = [[" ".join(strip_control(cell).split()) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        padded = [
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def size_text(nbytes: float) -> str:
    """``269 MB``: three digits that count, in powers of 1,000."""
    unit = 0
    while nbytes >= 999.5 and unit < len(_UNITS) - 1:
        nbytes /= 1000
        unit += 1
    digits = 0 if unit == 0 or nbytes >= 99.95 else 1 if nbytes >= 9.995 else 2
    return f"{nbytes:.{digits}f} {_UNITS[unit]}"
