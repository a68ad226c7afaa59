"""A passage where it stands: found in its document again, with some of the text around it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from nazx_cli.serving.errors import ApiError

if TYPE_CHECKING:
    from nazx_cli.documents.document import Document

_AROUND = 1_500  # characters on each side
_LONGEST = 20_000  # characters of a quote
_NEAR = 100_000  # characters from the line that is named, which are looked at first
_SPACE, _RUN = re.compile(r"\s+"), re.compile(r"\s{2,}")


@dataclass(frozen=True)
class Excerpt:
    """``quote`` as the document has it, and what stands before and after it; ``begins`` and
    ``ends``: nothing more does."""

    filename: str
    before: str
    quote: str
    after: str
    begins: bool
    ends: bool

    @property
    def record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def excerpt(document: Document, asked: Mapping[str, str]) -> Excerpt:
    """What ``asked`` names by its ``quote``, whose white space may be any, from ``first_line`` on.

    ``ApiError`` where the document does not say that.
    """
    quote = " ".join(asked.get("quote", "")[:_LONGEST].split())
    line = asked.get("first_line", "1")
    if not quote or not line.isdecimal() or len(line) > 12:
        raise ApiError(400, "quote and first_line must name a passage", "quote", "invalid_value")
    text = document.text
    start = _line_start(text, int(line))
    stretches = ((start, start + _NEAR), (start, len(text)), (0, len(text)))
    found = next(filter(None, (_find(quote, text, *stretch) for stretch in stretches)), None)
    if found is None:
        raise ApiError(404, f"{document.name} does not say that", "quote", "passage_not_found")
    begin, end = found
    first, last = max(0, begin - _AROUND), min(len(text), end + _AROUND)
    if first:
        first = max(text.find("\n", first, begin), first)  # a whole line where there is one
    if last < len(text):
        last = text.rfind("\n", end, last) + 1 or last
    before, after = text[first:begin], text[end:last]
    return Excerpt(document.name, before, text[begin:end], after, first == 0, last == len(text))


def _find(quote: str, text: str, start: int, stop: int) -> tuple[int, int] | None:
    """Where ``text`` from ``start`` to ``stop`` says ``quote``, whatever white space is between
    its words; in time by the length of both, whatever they are."""
    part = text[start:stop]
    at = _SPACE.sub(" ", part).find(quote)
    if at < 0:
        return None
    places = []
    for place in (at, at + len(quote) - 1):
        taken = 0  # characters of white space that one stands for
        for run in _RUN.finditer(part):
            if run.start() - taken >= place:
                break
            taken += len(run[0]) - 1
        places.append(start + place + taken)
    return places[0], places[1] + 1


def _line_start(text: str, line: int) -> int:
    """Where the line of that number begins, counted from 1; 0 where there is none."""
    at = 0
    for _ in range(line - 1):
        at = text.find("\n", at) + 1
        if not at:
            return 0
    return at
