"""Summaries that nobody wrote: sentences taken from the document.

What a model's summary has to be better than. Each way is an entry of ``EXTRACTS``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nazx_cli.evaluation.contestants.base import Reply, code_identity, model_identity
from nazx_cli.evaluation.data.stories import SUMMARY
from nazx_cli.reading.words import STOP_WORDS, stem, words

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nazx_cli.documents.document import Document
    from nazx_cli.evaluation.contestants.nazx import NazxContestant

DAMPING = 0.15
"""Chance that LexRank's walk goes to any sentence: Erkan and Radev take 0.1 to 0.2."""
_STEPS, _SETTLED = 200, 1e-9
_END = re.compile(r"(?<=[.!?…])[\"'”’)\]*_]*\s+(?=[\"'“‘(\[*_]*[^\Wa-z])|\n\s*\n\s*")


def sentences(text: str) -> list[str]:
    """The sentences of ``text``, in order, each on one line."""
    found, at = [], 0
    for match in _END.finditer(text):
        found.append(text[at : match.end()])
        at = match.end()
    found.append(text[at:])
    return [line for each in found if (line := " ".join(each.split()))]


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
    """(n,) continuous LexRank (Erkan and Radev, JAIR 22, 2004, eq. 5), which sums to 1.

    Sentences are TF-IDF vectors over stems, alike by their cosine. The n x n matrix of
    likenesses is never made: it is a product, and so is each step of the walk.
    """
    rows, columns, values = _tfidf(lines)
    count = len(lines)
    width = int(columns.max()) + 1 if len(columns) else 1

    def alike(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        by_word = np.bincount(columns, values * weights[rows], minlength=width)
        return np.bincount(rows, values * by_word[columns], count).astype(np.float64)

    degree = alike(np.ones(count))
    alone = degree <= 0  # a sentence without a word of content leads anywhere
    degree = np.where(alone, 1.0, degree)
    rank: NDArray[np.float64] = np.full(count, 1 / count)
    for _ in range(_STEPS):
        spread = alike(rank / degree) + rank[alone].sum() / count
        after: NDArray[np.float64] = DAMPING / count + (1 - DAMPING) * spread
        if np.abs(after - rank).sum() < _SETTLED:
            return after
        rank = after
    return rank


def _tfidf(
    lines: Sequence[str],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Rows, columns and values of the sentences' vectors, each of length 1."""
    numbers: dict[str, int] = {}
    rows, columns = [], []
    for row, line in enumerate(lines):
        for word in words(line):
            if word not in STOP_WORDS:
                rows.append(row)
                columns.append(numbers.setdefault(stem(word), len(numbers)))
    width = max(1, len(numbers))
    pairs, counts = np.unique(
        np.asarray(rows, np.int64) * width + np.asarray(columns, np.int64), return_counts=True
    )
    row_of, column_of = pairs // width, pairs % width
    rarity = np.log(len(lines) / np.maximum(1, np.bincount(column_of, minlength=width))) + 1
    values = counts * rarity[column_of]
    lengths = np.sqrt(np.bincount(row_of, values**2, minlength=len(lines)))
    return row_of, column_of, values / lengths[row_of]


EXTRACTS: Mapping[str, Callable[[str, int], str]] = {"lead": lead, "lexrank": lexrank}


class ExtractContestant:
    """Answers requests for a summary by an extract of the whole document."""

    kinds = frozenset({SUMMARY})

    def __init__(self, name: str, most: int) -> None:
        self.label = f"{name}, {most} words"
        self._name = name
        self._most = most

    @property
    def identity(self) -> Mapping[str, Any]:
        """The way and the length."""
        return {"extract": self._name, "words": self._most}

    def converse(self, document: Document, questions: Sequence[str]) -> Iterator[Reply]:
        """See ``Contestant``."""
        begin = time.perf_counter()
        text = EXTRACTS[self._name](document.text, self._most)
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
        """What is read depends on the model's tokens alone."""
        folder = self._reader.shelf.folder
        return {
            "extract": "passages",
            "words": self._most,
            "model": model_identity(folder),
            "code": code_identity(),
        }

    def converse(self, document: Document, questions: Sequence[str]) -> Iterator[Reply]:
        """See ``Contestant``."""
        for question in questions:
            begin = time.perf_counter()
            found = self._reader.find(document, question)
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
