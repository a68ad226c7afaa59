"""What is asked and of what: stories of sections, and questions with their reference answers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

from nazx_cli.documents.document import Document

ANSWER, SUMMARY = "answer", "summary"
"""Kinds of questions: one that has a short answer, one that asks for a summary."""
UNKNOWN = "unknown"
"""A question whose answer the data lacks, which is another thing than an unanswerable one."""

Hash: TypeAlias = "hashlib._Hash"
Span = tuple[int, int]
"""First character and the one after the last."""

BETWEEN = "\n\n"
"""What stands between two sections, and between two stories of a book."""


@dataclass(frozen=True)
class Section:
    """A stretch of a story that questions name as the right one."""

    id: str
    text: str


@dataclass(frozen=True)
class Question:
    """A question and what would be right.

    answers   reference answers or summaries; () where the document does not say
    sections  ids of the sections that hold the answer; () where that is not known
    evidence  a sentence of the document that holds the answer, or nothing
    wrong     wrong answers to choose from, where the data has some
    tags      further facts that figures can be told apart by, such as ``{"type": "implicit"}``
    """

    text: str
    answers: tuple[str, ...]
    kind: str = ANSWER
    sections: tuple[str, ...] = ()
    evidence: str = ""
    wrong: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Story:
    """One document; with ``chat`` its questions are the turns of one conversation.

    ``source`` is the file that the data names, None where the data holds the text itself.
    """

    title: str
    sections: tuple[Section, ...]
    questions: tuple[Question, ...]
    chat: bool = False
    source: Document | None = None

    @cached_property
    def text(self) -> str:
        """All sections."""
        return BETWEEN.join(section.text for section in self.sections)

    @cached_property
    def key(self) -> str:
        """Tells stories apart, whatever file they come from."""
        return digest(self.title, self.text)[:12]

    def spans(self, ids: Sequence[str]) -> tuple[Span, ...]:
        """Where in ``text`` the sections ``ids`` stand; those that there are not are left out."""
        return self._spans(self.text, ids)

    def spans_in_file(self, ids: Sequence[str]) -> tuple[Span, ...]:
        """The same of the text of ``source``, where there is one."""
        return self._spans(self.source.text if self.source else self.text, ids)

    def _spans(self, text: str, ids: Sequence[str]) -> tuple[Span, ...]:
        found, at = [], 0
        for section in self.sections:
            at = text.index(section.text, at)  # sections are stretches of it, in order
            end = at + len(section.text)
            if section.id in ids:
                found.append((at, end))
            at = end
        return tuple(found)


def digest(*parts: str) -> str:
    """SHA-256 of texts, hexadecimal; where one ends and the next begins counts."""
    return hashed(parts).hexdigest()


def hashed(parts: Iterable[str], before: Hash | None = None) -> Hash:
    """What ``digest`` tells of ``parts``, behind those that ``before`` was made of."""
    whole = before.copy() if before else hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        whole.update(len(data).to_bytes(8, "big") + data)
    return whole
