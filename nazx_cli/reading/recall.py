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

Of very many passages only those are scored that can be among the best. Of each word it is known
what it can add in a block of passages, at most; a block is left alone where all that together is
less than the best ones' score (as in block-max WAND, Ding and Suel, SIGIR 2011). In the others the
words are looked at one by one, the weightiest first, as long as what these give and the rest can
add is enough (as in MaxScore, Turtle and Flood, 1995). What is scored comes out the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from nazx_cli.reading.tallies import Positions, Tally, holding_any
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

_Float = TypeVar("_Float", np.float32, np.float64)

_K1, _B = 0.8, 0.75
_NEAR = 10  # tokens: words this close count as together, closer ones more
_MOST_NEAR = 8192  # occurrences: commoner words are left out of the search for close pairs
_QUESTION_WEIGHT, _STOP_WEIGHT = 0.25, 0.1
_KINDRED_COUNT = 0.2  # of an occurrence: what a word about the same thing adds to the count
_KINDRED_WEIGHT = 0.05  # and what it weighs by itself
_FEWEST_BLOCKS = 1 << 12  # fewer are all scored sooner than told apart
_FEWEST = 64  # blocks: fewer are scored sooner than looked at word by word
_ALONE = 32  # words that are looked at one by one, at most
_FIRST = 4  # blocks that are scored at first, for each passage that is asked for ...
_AGAIN = 4  # ... and how many times as many each time after that
_ROUNDED = 2e-7  # of a sum: more than float32 rounds off, each time that something is added


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

    Where only the best are asked for, ``order`` has those, and the scores of others may be 0.
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


def occurrences(library: Library, term: Term) -> Positions:
    """Positions of the tokens at which ``term`` stands in ``library``, ascending."""
    found = [library.matcher.find(stem) for stem in sorted(term.stems)]
    return found[0] if len(found) == 1 else np.unique(np.concatenate(found))


def holding(library: Library, term: Term) -> int:
    """In how many passages ``term`` stands."""
    return holding_any([library.matcher.tally(stem) for stem in term.stems])


def rarity(count: int, holding: int) -> float:
    """What a word that ``holding`` of ``count`` passages have weighs: its inverse passage
    frequency."""
    return float(np.log1p((count - holding + 0.5) / (holding + 0.5)))


def rank(library: Library, question: str, most: int | None = None) -> Ranking:
    """Rank the passages of ``library``: all of them, or the ``most`` best."""
    count = len(library.cuts) - 1
    if not count:
        return Ranking(np.zeros(0), np.zeros(0, np.int64))
    asked = _Asked(library, question)
    if most is not None and len(library.blocks) > _FEWEST_BLOCKS:
        passages, found = asked.best(most)
    else:
        passages, found = asked.scored(np.arange(len(library.blocks)))
    scores = np.zeros(count)
    scores[passages] = found
    order = passages[np.argsort(-found, kind="stable")]
    return Ranking(scores, order[:most])


class _Asked:
    """A question to a library: its words there, and which of them stand together."""

    def __init__(self, library: Library, question: str) -> None:
        self._blocks, self._cuts, self._shortest = library.blocks, library.cuts, library.shortest
        self._usual = int(library.cuts[-1]) / (len(library.cuts) - 1)  # tokens of a passage
        self._words = [_Word(library, term) for term in question_terms(question)]
        self._near = _together(library, self._words)
        self._weightiest = sorted(self._words, key=lambda word: -word.weight)

    def scored(self, chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The passages of blocks ``chosen``, ascending, and their scores."""
        passages = self._blocks.passages(chosen)
        kept = passages >= 0
        norm = self._norm(self._lengths(chosen))
        scores = np.zeros(passages.shape)
        for word in self._words:
            word.score(partial(self._counts, chosen), norm, scores)
        found, own = passages[kept], scores[kept]
        at = np.searchsorted(self._near[0], found)
        at[at == len(self._near[0])] = 0
        if len(self._near[0]):
            own += np.where(self._near[0][at] == found, self._near[1][at], 0.0)
        return found, own

    def best(self, most: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Passages, ascending, with the ``most`` best among them, and their scores.

        Blocks are scored by how much can be in them, until in none that is left there can be as
        much as the worst of the best has.
        """
        limits = self._limits()
        left, least, size = _summed(limits), 0.0, _FIRST * most
        found, scores = np.zeros(0, np.int64), np.zeros(0)
        while len(chosen := _greatest(left, least, size)):
            size *= _AGAIN
            likely = self._likely(chosen, [each[chosen] for each in limits], least)
            left[chosen] = -1
            passages, own = self.scored(likely)
            found, scores = np.append(found, passages), np.append(scores, own)
            if len(scores) >= most:
                least = float(np.partition(scores, -most)[-most])
        if not least > 0:  # too few have what is asked for: the first of the others follow
            first = np.arange(np.searchsorted(self._blocks.begins, 2 * most))
            passages, own = self.scored(first[left[first] >= 0])
            found, scores = np.append(found, passages), np.append(scores, own)
        order = np.argsort(found)
        return found[order], scores[order]

    def _likely(
        self, chosen: NDArray[np.int64], limits: list[NDArray[np.float32]], least: float
    ) -> NDArray[np.int64]:
        """Those of the blocks ``chosen`` in which a passage may score ``least``, seen word by word,
        the weightiest first; ``limits`` as ``_limits``, of these blocks."""
        if not least > 0:
            return chosen
        rest = np.sum(limits, axis=0, dtype=np.float64)
        sums = np.zeros((len(chosen), self._blocks.width), np.float32)
        norm = self._norm(self._lengths(chosen)).astype(np.float32)
        kept = np.arange(len(chosen))
        for word, limit in zip(self._weightiest, limits[:-1], strict=False):
            if len(kept) < _FEWEST:
                break
            word.score(partial(self._roughly, chosen[kept]), norm, sums)
            rest -= limit[kept]
            likely = sums.max(axis=1) * self._rounding + rest >= least
            kept, sums, rest, norm = (each[likely] for each in (kept, sums, rest, norm))
        return chosen[kept]

    def _norm(self, lengths: NDArray[Any]) -> NDArray[np.float64]:
        """By which a passage of that many tokens counts."""
        found: NDArray[np.float64] = _K1 * (1 - _B + _B * lengths / self._usual)
        return found

    def _lengths(self, chosen: NDArray[np.int64]) -> NDArray[Any]:
        """(b, width) tokens of the passages of blocks; behind the end of a document any number."""
        passages = self._blocks.passages(chosen)
        return self._cuts[passages + 1] - self._cuts[passages]

    def _counts(self, chosen: NDArray[np.int64], tallies: Sequence[Tally]) -> NDArray[np.float64]:
        """(b, width) how much all ``tallies`` count in the passages of blocks."""
        return self._blocks.spread(_summed([tally.around(chosen) for tally in tallies]))

    def _roughly(self, chosen: NDArray[np.int64], tallies: Sequence[Tally]) -> NDArray[np.float32]:
        """As ``_counts``, but for rounding."""
        return self._blocks.roughly(_summed([tally.around(chosen) for tally in tallies]))

    def _limits(self) -> list[NDArray[np.float32]]:
        """(B,) at least what any passage of each block gets from each of the weightiest words;
        then from all others together and from words close together."""
        norm = self._norm(self._shortest).astype(np.float32)
        alone = min(_ALONE, len(self._words))
        found = [np.zeros(len(self._blocks), np.float32) for _ in range(alone + 1)]
        for number, word in enumerate(self._weightiest):
            own = found[min(number, alone)]
            word.score(lambda some: _summed([tally.limits() for tally in some]), norm, own)
        blocks = np.searchsorted(self._blocks.begins, self._near[0], side="right") - 1
        closest = np.zeros_like(norm)
        np.maximum.at(closest, blocks, self._near[1].astype(np.float32))
        found[-1] += closest
        for own in found:
            own *= self._rounding
        return found

    @property
    def _rounding(self) -> np.float32:
        """More than sums of this question can lose in float32."""
        return np.float32(1 + _ROUNDED * sum(word.parts for word in self._words))


def _summed(arrays: list[NDArray[_Float]]) -> NDArray[_Float]:
    total = arrays[0]
    for each in arrays[1:]:
        total = total + each
    return total


def _greatest(left: NDArray[np.float32], least: float, size: int) -> NDArray[np.int64]:
    """Which are more than 0 and at least ``least``, ascending: the ``size`` greatest at most."""
    found = np.flatnonzero((left > 0) & (left >= least))
    if len(found) > size:
        found = np.sort(found[np.argpartition(-left[found], size)[:size]])
    return found


class _Word:
    """A word of the question in a library: where it and words about the same thing stand, and
    what they weigh."""

    def __init__(self, library: Library, term: Term) -> None:
        matcher, self._count = library.matcher, len(library.cuts) - 1
        self._own = [matcher.tally(stem) for stem in sorted(term.stems)]
        rare = sum(tally.total for tally in self._own) <= _MOST_NEAR
        self.at = occurrences(library, term) if rare else None
        kin = sorted(kindred_stems(term.stems)) if term.has_content else []
        related = [tally for tally in map(matcher.tally, kin) if tally.holding]
        self._kin = [(tally, rarity(self._count, tally.holding)) for tally in related]
        self._own = [tally for tally in self._own if tally.holding]
        self.weight = term.weight * rarity(self._count, holding_any(self._own or related))

    @property
    def parts(self) -> int:
        """Of how many numbers its scores are made."""
        return 16 + len(self._own) + 2 * len(self._kin)

    def score(
        self,
        counts: Callable[[Sequence[Tally]], NDArray[_Float]],
        norm: NDArray[_Float],
        scores: NDArray[_Float],
    ) -> None:
        """Add what the word adds to the passages of which ``counts`` tells the counts of tallies
        together."""
        kindred: NDArray[_Float] | None = None
        for tally, rarity in self._kin:
            found = counts([tally])
            scores += _bm25(found, norm, _KINDRED_WEIGHT * rarity)
            kindred = found if kindred is None else kindred + found
        own = counts(self._own) if self._own else None
        if kindred is not None:
            own = _KINDRED_COUNT * kindred if own is None else own + _KINDRED_COUNT * kindred
        if own is not None:
            scores += _bm25(own, norm, self.weight)


def _bm25(counts: NDArray[_Float], norm: NDArray[_Float], weight: float) -> NDArray[_Float]:
    """What a word with these counts adds to each passage."""
    scores: NDArray[_Float] = weight * counts * (_K1 + 1) / (counts + norm)
    return scores


Near = tuple["NDArray[np.int32]", "NDArray[np.float64]"]
"""Passages, ascending, and what words close together add to their scores."""


def _together(library: Library, words: list[_Word]) -> Near:
    """For each pair of words, the lesser weight times the closeness of the closest two in each
    passage."""
    found: list[tuple[NDArray[np.int32], NDArray[np.float64]]] = []
    rare = [(word.at, word.weight) for word in words if word.at is not None and len(word.at)]
    for (first, weight), (second, other) in combinations(rare, 2):
        if len(first) > len(second):
            first, second = second, first
        after = np.minimum(np.searchsorted(second, first), len(second) - 1)
        before = np.maximum(after - 1, 0)
        gap = np.minimum(np.abs(second[after] - first), np.abs(first - second[before]))
        close = gap <= _NEAR
        at = np.searchsorted(library.cuts, first[close], side="right") - 1
        passages, rows = np.unique(at, return_inverse=True)
        nearness = np.zeros(len(passages))
        np.maximum.at(nearness, rows, 1 / (1 + gap[close] / 5))
        found.append((passages.astype(np.int32), min(weight, other) * nearness))
    if not found:
        return np.zeros(0, np.int32), np.zeros(0)
    passages, rows = np.unique(np.concatenate([each for each, _ in found]), return_inverse=True)
    # One after another in the order of the pairs, as sums of floats depend on it.
    sums = np.bincount(rows, np.concatenate([each for _, each in found]))
    return passages, sums.astype(np.float64)
