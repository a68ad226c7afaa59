"""Naming passages as sources of an answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from nazx_cli.reading.passages import Passage

_PAGE = "page "  # how the places of paged documents begin


class SourceRecord(TypedDict):
    """A source as ``--json`` shows it; places are pages or chapters, null for text."""

    file: str
    first_line: int
    last_line: int
    first_place: str | None
    last_place: str | None
    opening: str
    text: str


def source_record(passage: Passage) -> SourceRecord:
    """``passage`` for a JSON listing, its text in full."""
    return {
        "file": passage.document,
        "first_line": passage.first_line,
        "last_line": passage.last_line,
        "first_place": passage.first_place,
        "last_place": passage.last_place,
        "opening": passage.opening,
        "text": passage.text.strip(),
    }


def source_line(passage: Passage) -> str:
    """``alice.txt:1345-1347  “'The Queen of Hearts, she made some tarts,…”``.

    A document that has pages or chapters is shown with those: ``book.pdf, pages 12-13  “…”``.
    Not stripped of control sequences: what shows it does that.
    """
    return f"{passage.document}{_where(passage)}  “{passage.opening}”"


def _where(passage: Passage) -> str:
    first, last = passage.first_place, passage.last_place
    if last is None:
        more = f"-{passage.last_line}" if passage.last_line > passage.first_line else ""
        return f":{passage.first_line}{more}"
    if first is None or first == last:
        return f", {last}"
    if first.startswith(_PAGE) and last.startswith(_PAGE):
        return f", pages {first.removeprefix(_PAGE)}-{last.removeprefix(_PAGE)}"
    return f", {first} – {last}"


def source_lines(passages: Iterable[Passage]) -> list[str]:
    """One line for each passage, in their order."""
    return [source_line(passage) for passage in passages]
