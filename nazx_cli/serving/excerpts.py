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
    words = asked.get("quote", "")[:_LONGEST].split()
    line = asked.get("first_line", "1")
    if not words or not line.isdecimal() or len(line) > 12:
        raise ApiError(400, "quote and first_line must name a passage", "quote", "invalid_value")
    text = document.text
    # A literal with white space between: no text makes it slow.
    pattern = re.compile(r"\s+".join(map(re.escape, words)))
    found = pattern.search(text, _line_start(text, int(line))) or pattern.search(text)
    if found is None:
        raise ApiError(404, f"{document.name} does not say that", "quote", "passage_not_found")
    begin, end = found.span()
    first, last = max(0, begin - _AROUND), min(len(text), end + _AROUND)
    if first:
        first = max(text.find("\n", first, begin), first)  # a whole line where there is one
    if last < len(text):
        last = text.rfind("\n", end, last) + 1 or last
    before, after = text[first:begin], text[end:last]
    return Excerpt(document.name, before, found[0], after, first == 0, last == len(text))


def _line_start(text: str, line: int) -> int:
    """Where the line of that number begins, counted from 1; 0 where there is none."""
    at = 0
    for _ in range(line - 1):
        at = text.find("\n", at) + 1
        if not at:
            return 0
    return at
