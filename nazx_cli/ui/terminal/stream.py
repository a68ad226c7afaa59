"""An answer that is still being written, as lines: those that are final, and those that are not."""

from __future__ import annotations

import re
from dataclasses import dataclass

from markdown_it.tree import SyntaxTreeNode
from rich.cells import chop_cells
from rich.text import Text

from nazx_cli.ui.terminal.markdown import (
    code_block,
    first_number,
    inline,
    list_item,
    parse,
    render,
    wrap,
)

_OPEN, _KEPT = 8, 4
"""A paragraph of more lines than the first is cut, so that the second stay open: long enough
for most marks to be closed."""

# A last line that may yet turn out to be a list's bullet, a heading's mark, a fence or a rule.
_UNDECIDED = re.compile(r"[\s>]*(?:\d{1,9}[.)]?|[-+*_=~`|:#])?[-+*_=~`|: #]*\Z")
_OPEN_MARKS = re.compile(r"[*_~`]+\Z")


@dataclass(frozen=True)
class Lines:
    """``final`` lines will not change and are to be printed once; ``open`` ones may yet."""

    final: list[Text]
    open: list[Text]


def fold(text: Text, width: int) -> list[Text]:
    """Rows of at most ``width`` cells, broken anywhere; nothing of ``text`` is lost."""
    text = text.copy()
    text.expand_tabs(4)
    if text.cell_len <= width:
        return [text]
    ends: list[int] = []
    for row in chop_cells(text.plain, max(2, width))[:-1]:
        ends.append((ends[-1] if ends else 0) + len(row))
    return list(text.divide(ends))


class PlainStream:
    """The text as it is; a line is final when it has ended, or has outgrown the room."""

    def __init__(self) -> None:
        self._text = ""

    def push(self, text: str) -> None:
        """Add a piece of the answer."""
        self._text += text

    def advance(self, width: int, room: int, *, is_over: bool = False) -> Lines:
        """What has become final since the last call, and what is open.

        ``width`` is in cells; where it can be, at most ``room`` lines are left open. With
        ``is_over`` none are.
        """
        *ended, self._text = self._text.split("\n")
        final = [Text(line) for line in ended]
        if is_over:
            final += [Text(self._text)] if self._text else []
            self._text = ""
        rows = fold(Text(self._text), width) if self._text else []
        if len(rows) > max(1, room):
            final += rows[:-1]
            rows = rows[-1:]
            self._text = rows[0].plain
        return Lines(final, rows)


@dataclass(frozen=True)
class _Unit:
    """What becomes final as a whole: a block, or an item of a list.

    ``line`` is where it begins in the source, ``has_gap`` whether a blank line comes before it,
    ``number`` what its list numbers it, ``is_first`` False for an item after the first.
    """

    node: SyntaxTreeNode
    line: int
    has_gap: bool
    number: int | None = None
    is_first: bool = True


class MarkdownStream:
    """Markdown: a block is final when the next one has begun, code as soon as its line ends."""

    def __init__(self) -> None:
        self._source = ""  # from the first open unit on
        self._has_gap = False  # that unit's
        self._number: int | None = None  # that unit's, where its list has begun before
        self._printed = 0  # lines of it that are final already

    def push(self, text: str) -> None:
        """Add a piece of the answer."""
        self._source += text

    def advance(self, width: int, room: int, *, is_over: bool = False) -> Lines:
        """As ``PlainStream`` has it."""
        source = self._source if is_over else _decided(self._source)
        units = self._units(source)
        final: list[Text] = []
        for unit in units if is_over else units[:-1]:
            final += self._lines(unit, width, source)[self._printed :]
            self._printed = 0
        if is_over or not units:
            self._source = "" if is_over else self._source
            return Lines(final, [])
        at = sum(len(row) + 1 for row in source.split("\n")[: units[-1].line])
        if len(units) > 1:
            self._has_gap = units[-1].has_gap
            self._number = None if units[-1].is_first else units[-1].number
        self._source, source = self._source[at:], source[at:]
        early, source = self._early(source, width, min(room, _OPEN))
        return Lines(final + early, self._tail(source, width))

    def _units(self, source: str) -> list[_Unit]:
        rows = source.split("\n")
        units: list[_Unit] = []
        for node in parse(source):
            first = first_number(node)
            if not units and first is not None and self._number is not None:
                first = self._number
            is_list = node.type in ("bullet_list", "ordered_list")
            for at, part in enumerate(node.children if is_list else [node]):
                line = part.map[0] if part.map else 0
                has_gap = not rows[line - 1].strip() if units else self._has_gap
                units.append(
                    _Unit(part, line, has_gap, None if first is None else first + at, at == 0)
                )
        return units

    def _lines(self, unit: _Unit, width: int, source: str) -> list[Text]:
        """The unit's lines, the blank one before it included."""
        node = unit.node
        if node.type == "list_item":
            lines = list_item(node, unit.number, width)
        elif node.type == "fence":
            lines = code_block(node, is_closed=_is_closed(node, source))
        else:
            lines = render([node], width)
        return [Text(), *lines] if unit.has_gap else lines

    def _early(self, source: str, width: int, room: int) -> tuple[list[Text], str]:
        """What of the open unit is final although it goes on; the source that remains."""
        unit = self._units(source)[0]
        if unit.node.type == "fence":
            lines = self._lines(unit, width, source)
            count = len(lines) if source.endswith("\n") else len(lines) - 1
            final = lines[self._printed : count]
            self._printed = max(self._printed, count)
            return final, source
        at_most = source.count("\n") + 2 + 3 * len(source) // width
        if unit.node.type != "paragraph" or at_most <= room:
            return [], source
        rows = wrap(inline(unit.node), width)
        if len(rows) <= room:
            return [], source
        for count in range(len(rows) - min(_KEPT, room), 0, -1):
            if at := _cut(source, rows, count):
                final = [Text(), *rows[:count]] if unit.has_gap else rows[:count]
                self._source, self._has_gap = self._source[at:], False
                return final, source[at:]
        return [], source

    def _tail(self, source: str, width: int) -> list[Text]:
        """The open unit's lines, with marks that are still open taken as closed."""
        units = self._units(source)
        if not units:
            return []
        if units[0].node.type != "fence" and (closed := _closed(source)) != source:
            units = self._units(closed) or units
        return self._lines(units[0], width, source)[self._printed :]


Stream = PlainStream | MarkdownStream
"""Text that arrives in pieces and leaves as lines."""


class ThoughtfulStream:
    """An answer, and before it what was thought, which is dimmed; both as streams of one kind."""

    def __init__(self, kind: type[PlainStream] | type[MarkdownStream]) -> None:
        self._answer, self._thoughts = kind(), kind()
        self._thinks = self._answers = False

    def think(self, text: str) -> None:
        """Add a piece of what is thought."""
        self._thinks = True
        self._thoughts.push(text)

    def push(self, text: str) -> None:
        """Add a piece of the answer."""
        self._answers = self._answers or bool(text)
        self._answer.push(text)

    def advance(self, width: int, room: int, *, is_over: bool = False) -> Lines:
        """As ``PlainStream`` has it; what is thought ends where the answer begins."""
        if not self._thinks:
            return self._answer.advance(width, room, is_over=is_over)
        ends = self._answers or is_over
        thoughts = self._thoughts.advance(width, room, is_over=ends)
        for line in (*thoughts.final, *thoughts.open):
            line.stylize("dim")
        if not ends:
            return thoughts
        self._thinks = False
        answer = self._answer.advance(width, room, is_over=is_over)
        return Lines([*thoughts.final, Text(), *answer.final], answer.open)


def _decided(source: str) -> str:
    """``source`` without a last line that does not show yet what it will be."""
    begin = source.rfind("\n") + 1
    return source[:begin] if _UNDECIDED.match(source, begin) else source


def _closed(source: str) -> str:
    """``source`` with emphasis and code closed that it leaves open."""
    text = _OPEN_MARKS.sub("", source.rstrip())
    paragraph = text[text.rfind("\n\n") + 1 :]
    if paragraph.count("`") % 2:
        return text + "`"
    for mark in ("**", "~~"):
        if paragraph.count(mark) % 2:
            return text + mark
    return text


def _is_closed(node: SyntaxTreeNode, source: str) -> bool:
    """Whether a code block's closing fence has come."""
    begin, end = node.map or (0, 0)
    last = source.split("\n")[end - 1].strip()
    return end - begin > 1 and last.startswith(node.markup) and not last.strip(node.markup[0])


def _cut(source: str, lines: list[Text], count: int) -> int | None:
    """Where in a paragraph's source its first ``count`` lines end, if both halves alone are
    shown as they are together."""
    plain = _plain(source) or ""
    length = 0
    for line in lines[:count]:
        length = plain.index(line.plain, length) + len(line.plain)
    at = length
    for _ in range(16):  # marks make the source longer than what is shown
        shown = _plain(source[:at])
        missing = length - len(shown) if shown is not None else 0
        if not missing:
            break
        at += missing
    rest = source[at:].lstrip()
    if not rest[:1].isalpha() or _plain(source[:at]) != plain[:length]:
        return None
    return len(source) - len(rest) if _plain(rest) == plain[length:].lstrip() else None


def _plain(source: str) -> str | None:
    """What is shown of a single paragraph; None where ``source`` is no such thing."""
    nodes = parse(source)
    if len(nodes) != 1 or nodes[0].type != "paragraph":
        return None
    return inline(nodes[0]).plain.rstrip()
