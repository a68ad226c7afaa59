"""The form in which a model with a reading adapter answers: the passage first, then the answer.

``[2] The gryphon.`` stands on passage 2; ``The document does not say.`` on none. Training writes
answers with ``write`` and use reads them with ``parse``, so that the two cannot differ.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from nazx_cli.tokenizer import Tokenizer

NOT_SAID = "The document does not say."
"""The whole answer where the passages do not hold one."""

_CITED = re.compile(r"\s*\[\s*(\d{1,4})\s*\][ \t]*")
_BEGUN = re.compile(r"\s*(\[\s*\d{0,4}\s*(\]\s*)?)?")
_LETTERS = re.compile(r"[^\W_]+")


class Cited(NamedTuple):
    """An answer taken apart: the passage's number as the prompt counts it or None, the text
    without it, and whether the answer is that the document does not say."""

    number: int | None
    text: str
    says_not: bool


def write(answer: str, number: int | None) -> str:
    """``answer`` as it is trained: with the passage's number before it, if it stands on one."""
    return answer if number is None else f"[{number}] {answer}"


def parse(answer: str) -> Cited:
    """Take apart what a model wrote; any text at all is an answer, if need be without citation.

    A number that no passage of the prompt has is for the caller to refuse.
    """
    found = _CITED.match(answer)
    text = without_citation(answer)
    says_not = _words(text) == _words(NOT_SAID)
    number = int(found.group(1)) if found and not says_not else None
    return Cited(number, text.strip(), says_not)


def opening(tokenizer: Tokenizer) -> int | None:
    """The token that every answer begins with that stands on a passage; None where it holds more
    than the bracket."""
    first = tokenizer.encode(write("A", 1))[0]
    return first if tokenizer.decode([first]) == "[" else None


def without_citation(answer: str) -> str:
    """The text of an answer, or of the beginning of one, space at its end and all."""
    found = _CITED.match(answer)
    return (answer[found.end() :] if found else answer).lstrip()


def is_open(beginning: str) -> bool:
    """Whether more must come before ``beginning`` shows if it has a citation: an answer that
    streams is held back for so long."""
    return _BEGUN.fullmatch(beginning) is not None


def _words(text: str) -> list[str]:
    return _LETTERS.findall(text.casefold())
