"""Where the sentences of a text begin and end, and which of their characters somebody says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Span = tuple[int, int]
"""First character, and the one after the last."""

_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_END = re.compile(r"[.!?…]+[\"'”’»)\]*_]*(?=\s)|[。！？][」』”’）]*")
_GOES_ON = re.compile(r"\s+[\"'“‘«(\[*_—-]*[a-z.]")
_NO_END = re.compile(
    r"(?:^|[\s(\[\"'“‘—-])(?:mrs?|ms|dr|st|mme|mlle|prof|capt|col|gen|lieut|lt|sgt|hon|rev|messrs"
    r"|vs|etc|no|vol|figs?|cf|ca|e\.g|i\.e|viz|[b-hj-z]|(?:[a-z]\.)+[a-z])\.$",
    re.IGNORECASE,
)
_ABBREVIATION = 16  # characters before a full stop that are looked at
_OWN_LINE = re.compile(r"\s*(?:[-*+•#>|]|\d{1,3}[.)]\s)")  # of a list, a heading, a table
_FULL = 0.75  # of a paragraph's longest line: a shorter one is not broken by its width

_OPENS = re.compile(r"(?<!\w)[\"'“‘«„](?=\S)")
_CLOSES = {'"': '"', "'": "'’", "“": '”"', "‘": "’'", "«": "»", "„": '“"'}


def sentence_spans(text: str) -> list[Span]:
    """The sentences of ``text``, in order, without the space around them.

    A heading, an entry of a list and whatever else stands in lines of its own is one too.
    """
    found: list[Span] = []
    for start, stop in _blocks(text):
        at = start
        for match in _END.finditer(text, start, stop):
            end = match.end()
            if end < stop and _is_inside(text, match, at, stop):
                continue
            found.append((at, end))
            at = end
        found.append((at, stop))
    return [span for start, stop in found if (span := _trimmed(text, start, stop))]


def sentences(text: str) -> list[str]:
    """The sentences of ``text``, in order, each on one line."""
    return [" ".join(text[start:stop].split()) for start, stop in sentence_spans(text)]


def paragraph_spans(text: str) -> Iterator[Span]:
    """What stands between blank lines."""
    at = 0
    for match in _PARAGRAPH.finditer(text):
        yield at, match.start()
        at = match.end()
    yield at, len(text)


def spoken(text: str, spans: Sequence[Span]) -> NDArray[np.float64]:
    """(n,): share of each span's characters that stand between quotation marks."""
    inside = np.zeros(len(text) + 1, np.int32)
    for start, stop in paragraph_spans(text):
        at = start
        while opening := _OPENS.search(text, at, stop):
            at = _closing(text, opening.group(), opening.end(), stop)
            inside[opening.start() : at] = 1
    before = np.concatenate([[0], np.cumsum(inside)])
    edges = np.asarray(spans, np.int64).reshape(-1, 2)
    lengths = np.maximum(1, edges[:, 1] - edges[:, 0])
    shares: NDArray[np.float64] = (before[edges[:, 1]] - before[edges[:, 0]]) / lengths
    return shares


def _blocks(text: str) -> Iterator[Span]:
    """Paragraphs, cut where a line does not run on into the next."""
    for start, stop in paragraph_spans(text):
        lines = text[start:stop].splitlines(keepends=True)
        longest = max(map(len, lines), default=0)
        at = end = start
        for number, line in enumerate(lines):
            following = lines[number + 1] if number + 1 < len(lines) else ""
            end += len(line)
            if _OWN_LINE.match(following) or len(line) < _FULL * longest or line[:1] == "#":
                yield at, end
                at = end
        if at < stop:
            yield at, stop


def _is_inside(text: str, end: re.Match[str], start: int, stop: int) -> bool:
    """Whether the sentence that began at ``start`` goes on after what looks like its end."""
    if end.group()[0] in "。！？":
        return False
    if _GOES_ON.match(text, end.end(), stop):
        return True
    before = text[max(start, end.end() - _ABBREVIATION) : end.end()]
    return end.group() == "." and _NO_END.search(before) is not None


def _closing(text: str, mark: str, at: int, stop: int) -> int:
    """Where the quotation that ``mark`` opens ends: after its closing mark, or at ``stop``."""
    for place in range(at, stop):
        if text[place] in _CLOSES[mark]:
            is_apostrophe = text[place] in "'’" and text[place - 1].isalpha()
            if not is_apostrophe and not text[place + 1 : place + 2].isalnum():
                return place + 1
    return stop


def _trimmed(text: str, start: int, stop: int) -> Span | None:
    while start < stop and text[start].isspace():
        start += 1
    while stop > start and text[stop - 1].isspace():
        stop -= 1
    return (start, stop) if start < stop else None
