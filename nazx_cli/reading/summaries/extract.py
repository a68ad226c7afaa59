"""A summary that nobody wrote: the sentences of a text that say most of it.

Each sentence is worth the words of content that it has, by how often the text has them. What was
said counts less each time it is said again, so that sentences chosen one by one cover the text
between them (as in the concept coverage of Gillick and Favre, 2009). In a story names weigh more.
That worth is multiplied by the sentence's centrality (LexRank), and by what tells sentences that
stand well alone: the first of a text or a paragraph, none of what people say, no "I", no "he" to
begin with. All weights were chosen on stories of SQuALITY's training split (plot summaries) and
one in five of the sections of two textbooks; within a factor of two they hardly matter.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from nazx_cli.reading.sentences import Span, sentence_spans, spoken
from nazx_cli.reading.words import STOP_WORDS, WORD, stem

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

DAMPING = 0.15
"""Chance that LexRank's walk goes to any sentence: Erkan and Radev take 0.1 to 0.2."""
_STEPS, _SETTLED = 200, 1e-9

STRETCHES = 4
"""Parts of a text that each give their share of an extract."""
_SHARE = 1.2  # of its equal part of the extract that a stretch may give, at most
_AGAIN = 0.7  # what a word counts each time after the first
_NAME = 4.0  # what a name counts more than another word, in a story
_STORY = 0.02  # share of "he", "she" and the like from which on a text is one
_LEAST_WORDS = (8, 4, 1)  # of a sentence; fewer where there is no other
_EXTRA = 20  # words that a sentence costs beside its own
_LONG = 40  # words from which on a longer sentence is worth no more
_MOST_SPOKEN, _SPOKEN = 0.2, 0.1  # a sentence of which more than so much is speech counts so much
_EXCLAIMED, _POINTING, _OWN = 0.3, 0.3, 4.0
_FIRST, _FADING, _OPENING = 1.0, 5.0, 0.2
_LEAST_CENTRAL = 0.05
_NEAR = 0.3  # of a sentence that names what is asked: what those beside it count

_PERSONS = frozenset(("he", "she", "his", "her", "him"))
_I = frozenset(("i", "me", "my", "mine", "we", "us", "our", "ours"))
_POINTING_WORDS = "it they hers its them their this that these those there"
_POINTERS = _PERSONS | frozenset(_POINTING_WORDS.split())
_CLOSED = re.compile(r"[.!?…。！？][\"'”’»)\]*_」』）]*$")
_CRIED = re.compile(r"[!?！？][\"'”’»)\]*_」』）]*$")
_NOT_THE_TEXT = re.compile(
    r"gutenberg|proofread|transcrib|e-?text|copyright|©|all rights reserved|isbn|https?:|www\."
    r"|^\W*(produced by|illustration|by the end of this section)",
    re.IGNORECASE,
)
_BEGINS = re.compile(r"\*\*\* ?START OF TH[EI].{0,200}?\*\*\*", re.DOTALL)
_ENDS = re.compile(r"\*\*\* ?END OF TH[EI]")


class Extractor:
    """A text taken apart into its sentences, to choose from.

    ``spans`` are the n sentences' characters; ``lengths`` (n,) counts their words.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        begin, end = _BEGINS.search(text), _ENDS.search(text)
        start, stop = begin.end() if begin else 0, end.start() if end else len(text)
        self.spans: list[Span] = [
            (a + start, b + start)
            for a, b in sentence_spans(text[start:stop] if begin or end else text)
        ]
        self._take_apart()

    def _take_apart(self) -> None:
        """Count words: of the content of each sentence, and what the others say of its kind."""
        numbers: dict[str, int] = {}
        rows, columns = array("q"), array("q")
        capitals, smalls = array("q"), array("q")
        lengths, own, pointing = array("q"), array("q"), array("q")
        persons = 0
        for row, (start, stop) in enumerate(self.spans):
            found = WORD.findall(self.text, start, stop)
            folded = [word.casefold() for word in found]
            lengths.append(len(found))
            own.append(sum(word in _I for word in folded))
            pointing.append(folded[:1] != [] and folded[0] in _POINTERS)
            for at, (word, low) in enumerate(zip(found, folded, strict=True)):
                if low in STOP_WORDS:
                    persons += low in _PERSONS
                    continue
                column = numbers.setdefault(stem(low), len(numbers))
                rows.append(row)
                columns.append(column)
                if not word[:1].isupper():
                    smalls.append(column)
                elif at:
                    capitals.append(column)
        self.lengths = np.asarray(lengths, np.int64)
        self._words = WordRows(
            np.asarray(rows, np.int64), np.asarray(columns, np.int64), len(self.spans)
        )
        width = self._words.width
        upper = np.bincount(np.asarray(capitals, np.int64), minlength=width)
        lower = np.bincount(np.asarray(smalls, np.int64), minlength=width)
        self._is_name = upper > lower
        total = max(1, int(self.lengths.sum()))
        self._narrates = min(1.0, persons / total / _STORY)
        self._own = np.asarray(own) / np.maximum(1, self.lengths)
        self._points = np.asarray(pointing, bool)

    @cached_property
    def _fitness(self) -> Floats:
        """(n,) what each sentence's words are multiplied by, its length apart."""
        count = len(self.spans)
        cried = np.zeros(count, bool)
        opens = np.zeros(count, bool)
        for row, (start, stop) in enumerate(self.spans):
            cried[row] = _CRIED.search(self.text, max(start, stop - 8), stop) is not None
            opens[row] = self.text[max(0, start - 2) : start] in ("\n\n", "")
        central = np.maximum(_LEAST_CENTRAL, count * self._words.centrality())
        first = 1 + _FIRST * np.exp(-np.arange(count) / _FADING) + _OPENING * opens
        fitness: Floats = (
            central
            * first
            * np.maximum(0.02, 1 - _OWN * self._own)
            * np.where(spoken(self.text, self.spans) > _MOST_SPOKEN, _SPOKEN, 1.0)
            * (1 - _EXCLAIMED * cried)
            * (1 - _POINTING * self._points)
            * np.minimum(1.0, _LONG / np.maximum(1, self.lengths))
            / (self.lengths + _EXTRA)
        )
        return fitness

    @cached_property
    def _candidates(self) -> NDArray[np.bool_]:
        """(n,) whether each sentence is a whole one, of the text itself."""
        closed = np.zeros(len(self.spans), bool)
        for row, (start, stop) in enumerate(self.spans):
            closed[row] = (
                _CLOSED.search(self.text, max(start, stop - 8), stop) is not None
                and _NOT_THE_TEXT.search(self.text, start, stop) is None
                and _is_prose(self.text[start:stop])
            )
        for least in _LEAST_WORDS:
            if (found := closed & (self.lengths >= least)).any():
                return found
        return self.lengths > 0

    def choose(
        self, words: int, most: int | None = None, about: Sequence[NDArray[np.int64]] = ()
    ) -> list[Span]:
        """The sentences of the extract in the order of the text: ``words`` words of them and no
        more than ``most``, but one in any case if there is one.

        ``about`` are the characters, ascending, at which each word stands that the extract is to
        be about; without, it is about everything.
        """
        worth: Floats = np.log1p(self._words.counts) ** 2
        worth *= 1 + _NAME * self._narrates * self._is_name
        fitness: Floats = self._fitness * self._relation(about) * self._candidates
        stretch = self._stretches()
        share = words if about else _SHARE * words / STRETCHES
        used, unsaid = np.zeros(STRETCHES), np.ones(self._words.width)
        chosen: list[int] = []
        while len(chosen) < (most or len(self.spans)):
            value: Floats = self._words.sums(worth) * fitness
            value[self._words.sums(unsaid) == 0] = 0.0  # it says nothing new
            open_ = (self.lengths <= words) & (used[stretch] < share)
            if chosen or (value[open_] > 0).any():  # a first one may be longer than the extract
                value[~open_] = 0.0
            best = int(np.argmax(value)) if len(value) else 0
            if not len(value) or value[best] <= 0:
                break
            chosen.append(best)
            words -= int(self.lengths[best])
            used[stretch[best]] += self.lengths[best]
            fitness[best] = 0
            worth[self._words.of(best)] *= _AGAIN
            unsaid[self._words.of(best)] = 0.0
        return [self.spans[row] for row in sorted(chosen)]

    def _stretches(self) -> NDArray[np.int64]:
        """(n,) the stretch of the text that each sentence stands in."""
        ends = np.cumsum(self.lengths)
        total = max(1, int(ends[-1])) if len(ends) else 1
        stretch: NDArray[np.int64] = (ends - self.lengths) * STRETCHES // total
        return np.minimum(STRETCHES - 1, stretch).astype(np.int64)

    def _relation(self, about: Sequence[NDArray[np.int64]]) -> Floats:
        """(n,) how much each sentence has to do with what is asked."""
        if not about:
            return np.ones(len(self.spans))
        starts = np.asarray([start for start, _ in self.spans], np.int64)
        named = np.zeros(len(self.spans))
        for at in about:
            rows = np.unique(np.searchsorted(starts, at, side="right") - 1)
            rows = rows[rows >= 0]
            named[rows] += np.log1p(len(self.spans) / max(1, len(rows)))
        beside = np.maximum(np.append(named[1:], 0.0), np.insert(named[:-1], 0, 0.0))
        related = np.maximum(named, _NEAR * beside)
        top = related.max(initial=0.0)
        relation: Floats = related / top if top else np.ones(len(self.spans))
        return relation


class WordRows:
    """Which words stand in which of n sentences: ``rows`` and ``columns`` (k,), one for each word
    of a sentence, the rows ascending."""

    def __init__(self, rows: NDArray[np.int64], columns: NDArray[np.int64], count: int) -> None:
        self.width = int(columns.max()) + 1 if len(columns) else 1
        self.counts = np.bincount(columns, minlength=self.width)
        pairs, self._times = np.unique(rows * self.width + columns, return_counts=True)
        self._rows, self._columns = pairs // self.width, pairs % self.width
        self._offsets = np.searchsorted(self._rows, np.arange(count + 1))
        self._count = count

    @classmethod
    def of_lines(cls, lines: Sequence[Sequence[str]]) -> WordRows:
        """Of sentences that are lists of words."""
        numbers: dict[str, int] = {}
        columns = [numbers.setdefault(word, len(numbers)) for line in lines for word in line]
        rows = np.repeat(np.arange(len(lines)), [len(line) for line in lines])
        return cls(rows.astype(np.int64), np.asarray(columns, np.int64), len(lines))

    def of(self, row: int) -> NDArray[np.int64]:
        """The distinct words of a sentence."""
        found: NDArray[np.int64] = self._columns[self._offsets[row] : self._offsets[row + 1]]
        return found

    def sums(self, worth: Floats) -> Floats:
        """(n,) the ``worth`` (width,) of each sentence's distinct words together."""
        return np.bincount(self._rows, worth[self._columns], self._count).astype(np.float64)

    def centrality(self) -> Floats:
        """(n,) continuous LexRank (Erkan and Radev, JAIR 22, 2004, eq. 5), which sums to 1.

        Sentences are TF-IDF vectors, alike by their cosine. The n x n matrix of likenesses is
        never made: it is a product, and so is each step of the walk.
        """
        count, values = self._count, self._tfidf()

        def alike(weights: Floats) -> Floats:
            by_word = np.bincount(self._columns, values * weights[self._rows], self.width)
            return np.bincount(self._rows, values * by_word[self._columns], count).astype(
                np.float64
            )

        degree = alike(np.ones(count))
        alone = degree <= 0  # a sentence without a word of content leads anywhere
        degree = np.where(alone, 1.0, degree)
        rank: Floats = np.full(count, 1 / max(1, count))
        for _ in range(_STEPS):
            spread = alike(rank / degree) + rank[alone].sum() / count
            after: Floats = DAMPING / count + (1 - DAMPING) * spread
            if np.abs(after - rank).sum() < _SETTLED:
                return after
            rank = after
        return rank

    def _tfidf(self) -> Floats:
        """The sentences' vectors, each of length 1."""
        holding = np.maximum(1, np.bincount(self._columns, minlength=self.width))
        values = self._times * (np.log(self._count / holding) + 1)[self._columns]
        lengths = np.sqrt(np.bincount(self._rows, values**2, minlength=self._count))
        normed: Floats = values / lengths[self._rows]
        return normed


_LETTERS = 0.6  # of its characters: less is a table, a formula or code


def _is_prose(sentence: str) -> bool:
    return sum(c.isalpha() for c in sentence) >= _LETTERS * len(sentence)
