"""Tables that use the width there is, and become lists where it is too small; text in lines broken
between words.

A pipe has no width: there every row is one line, however long.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from nazx_cli.documents.control import strip_control

_GAP = "  "
_INDENT = "  "  # of what belongs to the line above
_LEAST = 24  # cells; a column whose cells go on in further lines is no narrower
_WORDS = re.compile(r"\s*\S+")
_CAPITALS = re.compile(r"[A-Z]+( [A-Z]+)*")  # a heading in words, not the name of a type
_STEPS = re.compile(r"[^/\\]*[/\\]+|[^/\\]+")  # of a path


@dataclass(frozen=True)
class Table:
    """``rows`` of cells below their ``heading``; without one, a row's first cell is its name.

    The columns ``right`` are aligned right: figures, which stay on one line. Those that are
    ``spare`` are left out where there is no room for them, the last of them first.
    """

    rows: Sequence[Sequence[str]]
    heading: Sequence[str] = ()
    right: Collection[int] = ()
    spare: Sequence[int] = ()

    def lines(self, width: int | None) -> list[str]:
        """The table in at most ``width`` cells (None: in as many as it needs).

        Where that is too little, spare columns go, headings go on in further lines, then the text
        of the widest column; where its words have no room, each row becomes some lines
        ``name: value``, for all columns.
        """
        if (lines := self._as_columns(width)) is not None:
            return lines
        rows = [list(map(_clean, row)) for row in (self.heading, *self.rows) if row]
        most = width or 0
        return [part for line in self._list(rows) for part in wrapped(line, most, _INDENT)]

    def _as_columns(self, width: int | None) -> list[str] | None:
        """The table in columns; None where it has no room as one."""
        rows = [list(map(_clean, row)) for row in (self.heading, *self.rows) if row]
        widths = [max(map(cell_width, column)) for column in zip(*rows, strict=True)]
        lines = self._in_columns(rows, widths)
        if width is None or all(cell_width(line) <= width for line in lines):
            return lines
        if self.spare:
            return self._without(self.spare[-1])._as_columns(width)
        narrower = self._narrower(rows, width)
        return self._in_columns(rows, narrower) if narrower else None

    def _without(self, column: int) -> Table:
        def after(places: Collection[int]) -> list[int]:
            return [at - (at > column) for at in places if at != column]

        def kept(cells: Sequence[str]) -> list[str]:
            return [cell for at, cell in enumerate(cells) if at != column]

        heading = kept(self.heading)
        return Table([*map(kept, self.rows)], heading, after(self.right), after(self.spare))

    def _in_columns(self, rows: Sequence[Sequence[str]], widths: Sequence[int]) -> list[str]:
        return [
            self._line(cells, widths)
            for row in rows
            for cells in zip_longest(*map(wrapped, row, widths), fillvalue="")
        ]

    def _line(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        padded = []
        for at, (cell, width) in enumerate(zip(cells, widths, strict=True)):
            blank = " " * (width - cell_width(cell))
            padded.append(blank + cell if at in self.right else cell + blank)
        return _GAP.join(padded).rstrip()

    def _narrower(self, rows: Sequence[Sequence[str]], width: int) -> list[int] | None:
        """The columns' widths with which they fit into ``width``; None where they cannot."""
        headings = [name.split() for name in self.heading] or [[]] * len(rows[0])
        columns = zip(*rows[bool(self.heading) :], strict=True)
        widths = [
            max(map(cell_width, (*column, *names)))
            for column, names in zip(columns, headings, strict=True)
        ]
        room = width - sum(widths) - len(_GAP) * (len(widths) - 1)
        if room >= 0:
            return widths
        widest = max(set(range(len(widths))).difference(self.right), key=widths.__getitem__)
        widths[widest] += room
        if widths[widest] < _LEAST:
            return None
        parts = (part for row in rows for part in wrapped(row[widest], widths[widest]))
        return widths if max(map(cell_width, parts)) <= widths[widest] else None

    def _list(self, rows: Sequence[Sequence[str]]) -> Iterator[str]:
        """Each row as lines of names and values; a line for what it is called, and below it one
        for each of its cells that has something in it."""
        if not self.heading:
            for name, *values in rows:
                value = _GAP.join(filter(None, values))
                yield f"{name}: {value}" if name and value else name or f"{_INDENT}{value}".rstrip()
            return
        heading, *records = rows
        heading = [name.lower() if _CAPITALS.fullmatch(name) else name for name in heading]
        first = next(at for at, name in enumerate(heading) if name)
        for record in records:
            yield " ".join(filter(None, record[: first + 1]))
            for name, value in zip(heading[first + 1 :], record[first + 1 :], strict=True):
                if value:
                    yield f"{_INDENT}{name}: {value}" if name else f"{_INDENT}{value}"


def _clean(cell: str) -> str:
    return " ".join(strip_control(cell).split())


def cell_width(text: str) -> int:
    """Cells that ``text`` takes in a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def wrapped(line: str, width: int, further: str = "") -> list[str]:
    """``line`` in lines of at most ``width`` cells, broken between words, in a path that is longer
    than that after a slash; whatever else is too long for a line has one of its own.

    Each line begins as ``line`` does, those after the first with ``further`` besides.
    """
    if cell_width(line) <= width:
        return [line]
    indent = line[: len(line) - len(line.lstrip())]
    lines = [""]
    for piece in _pieces(line, width - cell_width(indent + further)):
        if lines[-1].strip() and cell_width(lines[-1] + piece) > width:
            lines.append(indent + further + piece.lstrip())
        else:
            lines[-1] += piece
    return lines


def _pieces(line: str, width: int) -> Iterator[str]:
    """Words with the space before them; steps of a path where it is longer than ``width``."""
    for word in _WORDS.findall(line):
        if cell_width(word.strip()) <= width:
            yield word
        else:
            yield from _STEPS.findall(word)
