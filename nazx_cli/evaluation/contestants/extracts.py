"""Summaries that nobody wrote: sentences taken from the documents.

What a model's summary has to be better than. Each way is an entry of ``EXTRACTS``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nazx_cli.evaluation.contestants.base import Reply
from nazx_cli.evaluation.data.stories import BETWEEN, SUMMARY
from nazx_cli.reading.sentences import sentences
from nazx_cli.reading.summaries.extract import WordRows
from nazx_cli.reading.words import STOP_WORDS, stem, words

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nazx_cli.documents.document import Document
    from nazx_cli.evaluation.contestants.nazx import NazxContestant


def lead(text: str, most: int) -> str:
    """The first sentences, ``most`` words of them; at least one."""
    lines = sentences(text)
    return " ".join(lines[: _fitting(lines, most)])


def lexrank(text: str, most: int) -> str:
    """The sentences most like all others, in the order of the text, up to ``most`` words."""
    lines = sentences(text)
    if not lines:
        return ""
    chosen: list[int] = []
    left = most
    for at in np.argsort(-centrality(lines), kind="stable").tolist():
        length = len(lines[at].split())
        if length <= left or not chosen:
            chosen.append(at)
            left -= length
    return " ".join(lines[at] for at in sorted(chosen))


def centrality(lines: Sequence[str]) -> NDArray[np.float64]:
    """(n,) how central each of ``lines`` is, by the stems of its words of content."""
    stems = [[stem(word) for word in words(line) if word not in STOP_WORDS] for line in lines]
    return WordRows.of_lines(stems).centrality()


EXTRACTS: Mapping[str, Callable[[str, int], str]] = {"lead": lead, "lexrank": lexrank}


class ExtractContestant:
    """Answers requests for a summary by an extract of the whole documents."""

    kinds = frozenset({SUMMARY})

    def __init__(self, name: str, most: int) -> None:
        self.label = f"{name}, {most} words"
        self._name = name
        self._most = most

    @property
    def identity(self) -> Mapping[str, Any]:
        """The way and the length."""
        return {"extract": self._name, "words": self._most}

    def converse(self, documents: Sequence[Document], questions: Sequence[str]) -> Iterator[Reply]:
        """See ``Contestant``."""
        begin = time.perf_counter()
        whole = BETWEEN.join(document.text for document in documents)
        text = EXTRACTS[self._name](whole, self._most)
        seconds = time.perf_counter() - begin
        for _ in questions:
            yield Reply(text, None, self._name, "stop", seconds)


class PassagesContestant:
    """Answers requests for a summary by the beginnings of the passages that NazX reads for it."""

    kinds = frozenset({SUMMARY})

    def __init__(self, reader: NazxContestant, most: int) -> None:
        self.label = f"the passages themselves, {most} words"
        self._reader = reader
        self._most = most

    @property
    def identity(self) -> Mapping[str, Any]:
        """The length, and who reads."""
        return {"extract": "passages", "words": self._most, "reader": self._reader.identity}

    def converse(self, documents: Sequence[Document], questions: Sequence[str]) -> Iterator[Reply]:
        """See ``Contestant``."""
        for question in questions:
            begin = time.perf_counter()
            found = self._reader.find(documents, question)
            share = self._most // max(1, len(found.passages))
            text = " ".join(lead(passage.text, share) for passage in found.passages)
            text = " ".join(text.split()[: self._most])
            seconds = time.perf_counter() - begin
            yield Reply(text, found.reads, found.mode, "stop", seconds)


def _fitting(lines: Sequence[str], most: int) -> int:
    total = 0
    for count, line in enumerate(lines):
        total += len(line.split())
        if total > most and count:
            return count
    return len(lines)
