"""Cutting documents into passages of about the same length, at the best places there are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, TypedDict

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


PASSAGE_TOKENS = 100
"""Tokens that a passage is aimed at.

With 1,200 tokens to fill, more of the answers to questions about stories were found in twelve
of 100 than in six of 200 (recall lends each the words around it).
"""
_SHORTEST, _LONGEST = 0.6, 1.2  # of the aim

_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_LINE = re.compile(r"\n\s*")
_SENTENCE = re.compile(r"[.!?…][\"'”’)\]*_]*\s+|[。！？]")
_PAGE = "page "  # how the places of paged documents begin


@dataclass(frozen=True)
class Passage:
    """A stretch of one document.

    ``first_line`` and ``last_line`` count from 1 and name the lines of its first and last
    visible character; ``start`` and ``stop`` are token positions in ``Library.ids``; ``text`` is
    exactly what stands there, surrounding space included. ``first_place`` and ``last_place`` name
    the page or chapter that it begins and ends in, where the document has some.
    """

    document: str
    first_line: int
    last_line: int
    start: int
    stop: int
    text: str
    first_place: str | None = None
    last_place: str | None = None

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def opening(self) -> str:
        """The first eight words or so, on one line."""
        head = self.text[:400].split()
        return " ".join(head[:8]) + ("…" if len(head) > 8 else "")


def cut(
    text: str, starts: NDArray[np.int32], joined: NDArray[np.bool_], aim: int = PASSAGE_TOKENS
) -> NDArray[np.int32]:
    """Where the passages of a document begin, and its end: token positions (P + 1,) int32.

    ``starts`` (N,) are the characters at which its tokens begin, and ``joined`` (N,) is true
    for a token that carries on the word before it. A cut falls on a paragraph break within
    0.6 to 1.2 of ``aim`` tokens if there is one, else a line break, a sentence's end, a word's
    end, or, in a word longer than that, anywhere.
    """
    total = len(starts)
    kinds = [_tokens_at(pattern, text, starts) for pattern in (_PARAGRAPH, _LINE, _SENTENCE)]
    shortest, longest = max(1, int(aim * _SHORTEST)), max(1, int(aim * _LONGEST))
    cuts = [0]
    while total - cuts[-1] > longest:
        at = cuts[-1]
        low, high = at + shortest, at + longest
        if high + shortest > total:  # leave enough for the last one
            high = max(low, total - shortest)
        cuts.append(_best_cut(kinds, joined, low, at + aim, high))
    if total:
        cuts.append(total)
    return np.asarray(cuts, dtype=np.int32)


def _best_cut(
    kinds: list[NDArray[np.int64]], joined: NDArray[np.bool_], low: int, aim: int, high: int
) -> int:
    aim = min(aim, high)
    for places in kinds:
        near = places[np.searchsorted(places, low) : np.searchsorted(places, high, side="right")]
        if len(near):
            return int(near[np.argmin(np.abs(near - aim))])
    free = np.flatnonzero(~joined[low : aim + 1])
    return low + int(free[-1]) if len(free) else aim


def _tokens_at(pattern: re.Pattern[str], text: str, starts: NDArray[np.int32]) -> NDArray[np.int64]:
    """Tokens that hold the first character after each match, ascending.

    A token may begin with the space that the match ended with; that space goes with it.
    """
    # int32 as the starts are: else numpy would turn all of them into int64
    ends = np.fromiter((m.end() for m in pattern.finditer(text)), dtype=np.int32)
    at = np.searchsorted(starts, ends, side="right") - 1
    at = at[(ends < len(text)) & (at > 0)]
    # Of several tokens that share a character, the first.
    at = np.searchsorted(starts, starts[at], side="left")
    return np.unique(at).astype(np.int64)


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


def distinct(passages: Sequence[Passage]) -> list[tuple[int, Passage]]:
    """The passages with their numbers, counted from 1, without those that lie within another."""
    return [
        (number, passage)
        for number, passage in enumerate(passages, 1)
        if not any(
            passage.document == other.document
            and other.start <= passage.start
            and passage.stop <= other.stop
            and (len(passage) < len(other) or at < number)
            for at, other in enumerate(passages, 1)
            if at != number
        )
    ]


def short_names(passages: Iterable[Passage]) -> dict[str, str]:
    """Names of the passages' documents: the last part alone of a path that no other ends in."""
    names = {passage.document: PurePath(passage.document).name for passage in passages}
    count = Counter(names.values())
    return {name: last if last and count[last] == 1 else name for name, last in names.items()}


def source_line(passage: Passage, quote: str = "", name: str | None = None) -> str:
    """``alice.txt:1345-1347  “'The Queen of Hearts, she made some tarts,…”``, or with ``quote``
    and its lines in place of the first words and the passage's, and ``name`` in that of the
    document's own.

    A document that has pages or chapters is shown with those: ``book.pdf, pages 12-13  “…”``.
    Not stripped of control sequences: what shows it does that.
    """
    return f"{name or passage.document}{place(passage, quote)}  “{quote or passage.opening}”"


def places_line(passages: Sequence[Passage]) -> str:
    """``alice.txt:12, 40-42, 77``: one document and the places of several passages in it."""
    wheres = dict.fromkeys(place(passage) for passage in passages)
    first, *others = wheres
    return passages[0].document + ", ".join([first, *(where.lstrip(":, ") for where in others)])


def place(passage: Passage, quote: str = "") -> str:
    """Where a passage stands in its document, or where ``quote`` does in it: ``:12-14``, or
    ``, page 3``."""
    first, last = passage.first_place, passage.last_place
    if last is None:
        top, bottom = _lines(passage, quote)
        return f":{top}-{bottom}" if bottom > top else f":{top}"
    if first is None or first == last:
        return f", {last}"
    if first.startswith(_PAGE) and last.startswith(_PAGE):
        return f", pages {first.removeprefix(_PAGE)}-{last.removeprefix(_PAGE)}"
    return f", {first} – {last}"


def _lines(passage: Passage, quote: str) -> tuple[int, int]:
    """The first and the last line of ``quote``, words of the passage on one line; the passage's
    where it has them not."""
    text = passage.text.lstrip()
    words = quote.split()
    found = re.search(r"\s+".join(map(re.escape, words)), text) if words else None
    if found is None:
        return passage.first_line, passage.last_line
    top = passage.first_line + text.count("\n", 0, found.start())
    return top, top + found.group().count("\n")
