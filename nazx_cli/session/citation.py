"""The two forms in which answers tell what they stand on.

A model with a reading adapter names the passage first: ``[2] The gryphon.`` stands on passage 2;
``The document does not say.`` on none. Training writes answers with ``write`` and use reads them
with ``parse``, so that the two cannot differ.

A model that is trained on numbered sources puts a reference behind what it supports, which quotes
one: ``<ref name="2">the words</ref>``. A person sees the answer without them, and below it what
they quote, where a source of the prompt has it: a quotation that none has is not shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from nazx_cli.tokenizer.sources import NUMBER

if TYPE_CHECKING:
    from nazx_cli.reading.passages import Passage
    from nazx_cli.tokenizer import Tokenizer

NOT_SAID = "The document does not say."
"""The whole answer where the passages do not hold one."""

_CITED = re.compile(r"\s*\[\s*(\d{1,4})\s*\][ \t]*")
_BEGUN = re.compile(r"\s*(\[\s*\d{0,4}\s*(\]\s*)?)?")
_LETTERS = re.compile(r"[^\W_]+")
_WHOLE = re.compile(
    rf"\s*<ref\s+name=\"(?:{re.escape(NUMBER)})?\s*(\d{{1,4}})\s*\">(.*?)</ref>", re.DOTALL
)
_CUT = re.compile(r"\s*<ref\s.*\Z", re.DOTALL)
_OPEN = re.compile(r"\s*(?:<(?:r(?:e(?:f(?:\s.*)?)?)?)?)?\Z", re.DOTALL)
_SIMPLER = str.maketrans({"“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "—": "-", "–": "-"})
_AROUND = " \"'.…"


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


def mark_tokens(tokenizer: Tokenizer) -> int:
    """Tokens that a passage's number takes before an answer."""
    return len(tokenizer.encode(write("A", 1))) - len(tokenizer.encode("A"))


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


class Quotation(NamedTuple):
    """Words of a passage that an answer rests on, on one line."""

    passage: Passage
    text: str


def without_references(answer: str, *, ended: bool = True) -> str:
    """The text of an answer or, where it has not ``ended``, of the beginning of one: what may be
    that of a reference is then left out, and so is space that may stand before one."""
    return (_CUT if ended else _OPEN).sub("", _WHOLE.sub("", answer))


def quotations(answer: str, passages: Sequence[Passage]) -> Iterator[Quotation]:
    """What the references of ``answer`` quote, of the ``passages`` as the prompt numbers them: each
    once, and only what the passage says, or another where the model took the wrong number."""
    seen: set[str] = set()
    for found in _WHOLE.finditer(answer):
        number, quote = int(found.group(1)), _plain(found.group(2)).strip(_AROUND)
        if not quote or quote in seen:
            continue
        seen.add(quote)
        named = passages[number - 1 : number] if number else ()
        for passage in (*named, *passages):
            if (text := _standing(quote, passage)) is not None:
                yield Quotation(passage, text)
                break


def quoted_first(quotes: Sequence[Quotation], passages: Sequence[Passage]) -> tuple[Passage, ...]:
    """The passages, each once, those that are quoted before the others."""
    return tuple(dict.fromkeys([*(each.passage for each in quotes), *passages]))


def _standing(quote: str, passage: Passage) -> str | None:
    """The words of ``passage`` that ``quote`` repeats; None where it does not."""
    text = " ".join(passage.text.split())
    at = _plain(text).find(quote)
    return None if at < 0 else text[at : at + len(quote)]


def _plain(text: str) -> str:
    """On one line, quotation marks and dashes the simple ones, without capitals; as long as it
    was, but for white space."""
    return "".join(c.lower()[:1] for c in " ".join(text.split()).translate(_SIMPLER))
