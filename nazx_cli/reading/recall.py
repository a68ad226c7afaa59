"""Ranking passages against a question, on the posting lists of tokens.

The score is BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009, eq.
3.15) with three changes that measured better on questions about stories whose place is
known (FairytaleQA):

- a word counts in part for the passages around the one it stands in, since a story names a
  thing once and then says "it";
- two of the question's words close together count beyond what they count apart;
- words that shape a question ("who", "happened") weigh a quarter, stop words a tenth.

Words about the same thing (a "trial" and an "accusation") count a little as well: that left the
stories' figures as they were and found more on Alice, where questions name things in other
words. Feedback from the best passages (relevance models), rewarding the share of words covered,
and BM25+ measured no better.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from nazx_cli.reading.words import (
    QUESTION_WORDS,
    STOP_WORDS,
    kindred_stems,
    related_stems,
    words,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nazx_cli.reading.library import Library

_K1, _B = 0.8, 0.75
_SHARE, _REACH = 0.5, 300  # a passage d tokens away gets share * exp(-d / reach) of a count ...
_FARTHEST = 700  # ... up to this many tokens away
_NEAR = 10  # tokens: words this close count as together, closer ones more
_MOST_NEAR = 8192  # occurrences: commoner words are left out of the search for close pairs
_QUESTION_WEIGHT, _STOP_WEIGHT = 0.25, 0.1
_KINDRED_COUNT = 0.2  # of an occurrence: what a word about the same thing adds to the count
_KINDRED_WEIGHT = 0.05  # and what it weighs by itself


@dataclass(frozen=True)
class Term:
    """A word of the question: the stems that stand for it and how much it weighs."""

    word: str
    stems: frozenset[str]
    weight: float

    @property
    def has_content(self) -> bool:
        """False for stop words and for words that only shape a question."""
        return self.weight == 1.0


@dataclass(frozen=True)
class Ranking:
    """How well each passage fits a question.

    scores   (P,) float64, at least 0; 0 where a passage has nothing to do with the question
    order    (P,) int64, passages from best to worst, earlier ones first among equals
    """

    scores: NDArray[np.float64]
    order: NDArray[np.int64]


def question_terms(question: str) -> tuple[Term, ...]:
    """The distinct words of ``question``, in order."""
    terms: dict[frozenset[str], Term] = {}
    for word in words(question):
        stems = related_stems(word)
        weight = 1.0
        if word in STOP_WORDS:
            weight = _STOP_WEIGHT
        elif word in QUESTION_WORDS:
            weight = _QUESTION_WEIGHT
        if stems not in terms or weight > terms[stems].weight:
            terms[stems] = Term(word, stems, weight)
    return tuple(terms.values())


def occurrences(library: Library, term: Term) -> NDArray[np.int32]:
    """Positions at which ``term`` stands in ``library.ids``, ascending."""
    found = [library.matcher.find(stem) for stem in sorted(term.stems)]
    return found[0] if len(found) == 1 else np.unique(np.concatenate(found))


def rank(library: Library, question: str) -> Ranking:
    """Rank all passages of ``library``."""
    scores = np.zeros(len(library.cuts) - 1)
    if not len(scores):
        return Ranking(scores, np.zeros(0, np.int64))
    bm25 = _Bm25(library)
    weighted: list[tuple[NDArray[np.int32], float]] = []
    for term in question_terms(question):
        at = occurrences(library, term)
        counts = bm25.counts(at)
        kin = np.zeros_like(counts)
        for other in sorted(kindred_stems(term.stems)) if term.has_content else ():
            own = bm25.counts(library.matcher.find(other))
            scores += bm25.score(own, _KINDRED_WEIGHT * bm25.rarity(own))
            kin += own
        counts_all = counts + _KINDRED_COUNT * kin
        weight = term.weight * bm25.rarity(counts if len(at) else counts_all)
        scores += bm25.score(counts_all, weight)
        if len(at):
            weighted.append((at, weight))
    scores += _together(library, weighted)
    return Ranking(scores, np.argsort(-scores, kind="stable"))


class _Bm25:
    """The parts of the score that are the library's own; counts are by passage, (P,) float64."""

    def __init__(self, library: Library) -> None:
        self._library = library
        lengths = np.diff(library.cuts).astype(np.float64)
        self._norm = _K1 * (1 - _B + _B * lengths / lengths.mean())
        # what stands in another document is not near
        self._documents = np.searchsorted(library.bounds, library.cuts[:-1], side="right")

    def counts(self, at: NDArray[np.int32]) -> NDArray[np.float64]:
        """How many of the positions ``at``, ascending, each passage holds."""
        return np.diff(np.searchsorted(at, self._library.cuts)).astype(np.float64)

    def rarity(self, counts: NDArray[np.float64]) -> float:
        """Inverse passage frequency."""
        holding = np.count_nonzero(counts)
        return float(np.log1p((len(counts) - holding + 0.5) / (holding + 0.5)))

    def score(self, counts: NDArray[np.float64], weight: float) -> NDArray[np.float64]:
        """What a word with these counts adds to each passage."""
        if not counts.any():
            return counts
        counts = self._spread(counts)
        scores: NDArray[np.float64] = weight * counts * (_K1 + 1) / (counts + self._norm)
        return scores

    def _spread(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """``counts`` with a share of each passage's count added to those around it."""
        total, own, aim = counts.copy(), self._documents, self._library.passage_tokens
        for distance in range(1, min(_FARTHEST // aim, len(counts) - 1) + 1):
            share = _SHARE * np.exp(-distance * aim / _REACH)
            same = own[distance:] == own[:-distance]
            total[distance:] += share * counts[:-distance] * same
            total[:-distance] += share * counts[distance:] * same
        return total


def _passages_of(library: Library, at: NDArray[np.int32]) -> NDArray[np.int64]:
    passages: NDArray[np.int64] = np.searchsorted(library.cuts, at, side="right") - 1
    return passages


def _together(
    library: Library, weighted: list[tuple[NDArray[np.int32], float]]
) -> NDArray[np.float64]:
    """(P,) for each pair of words, the lesser weight times the closeness of the closest two."""
    bonus = np.zeros(len(library.cuts) - 1)
    rare = [(at, weight) for at, weight in weighted if len(at) <= _MOST_NEAR]
    for (first, weight), (second, other) in combinations(rare, 2):
        if len(first) > len(second):
            first, second = second, first
        after = np.minimum(np.searchsorted(second, first), len(second) - 1)
        before = np.maximum(after - 1, 0)
        gap = np.minimum(np.abs(second[after] - first), np.abs(first - second[before]))
        close = gap <= _NEAR
        nearness = np.zeros(len(bonus))
        np.maximum.at(nearness, _passages_of(library, first[close]), 1 / (1 + gap[close] / 5))
        bonus += min(weight, other) * nearness
    return bonus
