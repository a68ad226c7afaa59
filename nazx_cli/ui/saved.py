"""Saved sessions in a list, and what is found in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from nazx_cli.ui.phrases import ago, size_text
from nazx_cli.ui.terminal.tables import Table

if TYPE_CHECKING:
    from nazx_cli.session.saving.conversation import Conversation
    from nazx_cli.session.saving.session_file import SessionInfo

_HEADING = ("", "NAME", "SAVED", "TURNS", "DOCS", "TOKENS", "SIZE", "MODEL", "")
_AROUND = 40  # characters of an answer that are shown on each side of what was found


def table(infos: Sequence[SessionInfo], here: str | None = None) -> Table:
    """A row for each session; ``here`` is the one that the person is in."""
    rows = [_row(info, info.name == here) for info in infos]
    return Table(rows, _HEADING, right=(3, 4, 5, 6), spare=(5, 4, 6))


def _row(info: SessionInfo, is_here: bool) -> tuple[str, ...]:
    remark = info.problem or (f"open (pid {info.open_by})" if info.open_by and not is_here else "")
    return (
        "*" if is_here else "",
        info.name,
        ago(datetime.now(timezone.utc) - info.saved),
        str(info.turns),
        str(info.documents),
        f"{info.tokens:,}",
        size_text(info.nbytes),
        info.model,
        remark,
    )


def facts(info: SessionInfo) -> dict[str, Any]:
    """A session in a list, for JSON."""
    return {
        "name": info.name,
        "saved": info.saved.isoformat(timespec="seconds"),
        "model": info.model or None,
        "turns": info.turns,
        "documents": info.documents,
        "tokens": info.tokens,
        "bytes": info.nbytes,
        "open_by": info.open_by,
        "problem": info.problem or None,
    }


def matches(said: Conversation, words: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Number and place of each turn that has all ``words``, in upper or lower case."""
    wanted = [word.casefold() for word in words]
    for number, turn in enumerate(said.turns, 1):
        for text in (turn.question, turn.answer):
            if wanted[0] in text.casefold():
                break
        if all(word in f"{turn.question}\n{turn.answer}".casefold() for word in wanted):
            yield number, _around(text, wanted[0])


def _around(text: str, word: str) -> str:
    """The words around the first ``word`` of ``text``, on one line."""
    line = " ".join(text.split())
    at = max(line.casefold().find(word), 0)
    begin, end = max(0, at - _AROUND), at + len(word) + _AROUND
    if begin:
        begin = line.find(" ", begin, at) + 1 or begin
    if end < len(line):
        end = max(line.rfind(" ", at + len(word), end), at + len(word))
    return f"{'…' * bool(begin)}{line[begin:end]}{'…' * (end < len(line))}"
