"""Naming passages as sources of an answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from nazx_cli.reading.passages import Passage


class SourceRecord(TypedDict):
    """A source as ``--json`` shows it."""

    file: str
    first_line: int
    last_line: int
    opening: str
    text: str


def source_record(passage: Passage) -> SourceRecord:
    """``passage`` for a JSON listing, its text in full."""
    return {
        "file": passage.document,
        "first_line": passage.first_line,
        "last_line": passage.last_line,
        "opening": passage.opening,
        "text": passage.text.strip(),
    }


def source_line(passage: Passage) -> str:
    """``alice.txt:1345-1347  “'The Queen of Hearts, she made some tarts,…”``.

    Not stripped of control sequences: what shows it does that.
    """
    lines = str(passage.first_line)
    if passage.last_line > passage.first_line:
        lines += f"-{passage.last_line}"
    return f"{passage.document}:{lines}  “{passage.opening}”"


def source_lines(passages: Iterable[Passage]) -> list[str]:
    """One line for each passage, in their order."""
    return [source_line(passage) for passage in passages]
