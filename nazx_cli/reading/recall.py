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

Of very many passages only those are scored that can be among the best: a block of them is left
alone where no passage could reach the best ones' score if all that the block has of each word
stood in it (as in block-max WAND, Ding and Suel, SIGIR 2011). What is scored comes out the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from nazx_cli.reading.matcher import Positions, Tally
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
_BLOCK = 8  # passages, at least, that are left alone together
_FEWEST_BLOCKS = 1 << 12  # fewer are all looked at sooner than told apart
_SLIGHT = 0.05  # a weight that is not worth looking at in each block ...
_WORTH = 1 / 16  # ... unless more than this share of the blocks is left without


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


def holding(library: Library, term: Term) -> NDArray[np.int32]:
    """Passages in which ``term`` stands, ascending."""
    found = [library.matcher.tally(stem).passages for stem in sorted(term.stems)]
    return found[0] if len(found) == 1 else np.unique(np.concatenate(found))


def rank(library: Library, question: str, most: int | None = None) -> Ranking:
    """Rank the passages of ``library``: all of them, or the ``most`` best."""
    count = len(library.cuts) - 1
    if not count:
        return Ranking(np.zeros(0), np.zeros(0, np.int64))
    cells = library.cells
    words = [_Word(library, term) for term in question_terms(question)]
    near = _together(library, words)
    few = most is not None and cells.num_blocks > _FEWEST_BLOCKS
    chosen = _likely(cells, words, near, most or 0) if few else np.arange(cells.num_blocks)
    passages, found = _scored(cells, words, near, chosen)
    scores = np.zeros(count)
    scores[passages] = found
    order = passages[np.argsort(-found, kind="stable")]
    return Ranking(scores, order.astype(np.int64)[:most])


class Cells:
    """The passages of a library in a row, with room between documents as wide as a word reaches:
    what stands in another document is not near. The row is looked at in blocks.

    place    (P,) int32, the cell of each passage
    passage  (num_blocks, block) int32, the passage of each cell; -1 for room
    norm     (P,) float64, by which a passage's length counts
    """

    def __init__(self, cuts: Positions, bounds: NDArray[np.int64], aim: int) -> None:
        count = len(cuts) - 1
        self.reach = min(_FARTHEST // aim, max(0, count - 1))
        self.shares = _SHARE * np.exp(-np.arange(1, self.reach + 1) * aim / _REACH)
        self.block = max(_BLOCK, self.reach)
        document = np.searchsorted(bounds, cuts[:-1], side="right")
        self.place = (np.arange(count) + self.reach * document).astype(np.int32)
        self.num_blocks = -(-(int(self.place[-1]) + 1) // self.block) if count else 0
        passage = np.full(self.num_blocks * self.block, -1, np.int32)
        passage[self.place] = np.arange(count, dtype=np.int32)
        self.passage = passage.reshape(self.num_blocks, self.block)
        lengths = np.diff(cuts).astype(np.float64)
        self.norm = _K1 * (1 - _B + _B * lengths / lengths.mean()) if count else lengths
        self._least: NDArray[np.float64] | None = None

    @property
    def least_norm(self) -> NDArray[np.float64]:
        """(num_blocks,) the least of each block."""
        if self._least is None:
            norms = np.full(self.num_blocks * self.block, np.inf)
            norms[self.place] = self.norm
            self._least = norms.reshape(-1, self.block).min(axis=1)
        return self._least

    def by_block(self, tally: Tally) -> NDArray[np.float64]:
        """(num_blocks,) at least what ``spread`` gives for any passage of each block."""
        blocks = self.place[tally.passages] // self.block
        own = np.bincount(blocks, tally.counts, self.num_blocks).astype(np.float64)
        share = self.shares[0] if self.reach else 0.0
        most = own.copy()
        most[1:] += share * own[:-1]
        most[:-1] += share * own[1:]
        return most

    def spread(self, tally: Tally, blocks: NDArray[np.int64]) -> NDArray[np.float64]:
        """(b, block) the count in each passage of ``blocks`` (b,), ascending, with a share of that
        of each passage around it added."""
        reach, width = self.reach, self.block + 2 * self.reach
        begins = blocks * self.block - reach
        places = self.place[tally.passages]
        first = np.searchsorted(places, begins)
        many = np.searchsorted(places, begins + width) - first
        at = np.repeat(first - (np.cumsum(many) - many), many) + np.arange(many.sum())
        rows = np.repeat(np.arange(len(blocks)), many)
        cells = np.zeros((len(blocks), width))
        cells[rows, places[at] - begins[rows]] = tally.counts[at]
        total = cells[:, reach : reach + self.block].copy()
        for distance, share in enumerate(self.shares, 1):
            total += share * cells[:, reach - distance : reach - distance + self.block]
            total += share * cells[:, reach + distance : reach + distance + self.block]
        return total


class _Word:
    """A word of the question in a library: where it and words about the same thing stand, and
    what they weigh."""

    def __init__(self, library: Library, term: Term) -> None:
        matcher, self.count = library.matcher, len(library.cuts) - 1
        self.at: Positions | None = None
        if len(term.stems) == 1:
            (stem,) = term.stems
            self.own = matcher.tally(stem)
            if self.own.counts.sum(dtype=np.int64) <= _MOST_NEAR:
                self.at = matcher.find(stem)
        else:
            at = occurrences(library, term)  # two forms may stand in one token
            self.own = Tally.of(at, library.cuts)
            self.at = at if len(at) <= _MOST_NEAR else None
        kin = sorted(kindred_stems(term.stems)) if term.has_content else []
        self.kin = [(each, self._rarity(len(each.passages))) for each in map(matcher.tally, kin)]
        having = self.own.passages
        if not len(having) and kin:
            having = np.unique(np.concatenate([each.passages for each, _ in self.kin]))
        self.weight = term.weight * self._rarity(len(having))

    def _rarity(self, holding: int) -> float:
        """Inverse passage frequency."""
        return float(np.log1p((self.count - holding + 0.5) / (holding + 0.5)))

    def score(
        self,
        counts: Callable[[Tally], NDArray[np.float64]],
        norm: NDArray[np.float64],
        scores: NDArray[np.float64],
    ) -> None:
        """Add what the word adds to the passages of which ``counts`` tells a tally's counts."""
        kindred = np.zeros_like(scores)
        for tally, rarity in self.kin:
            if len(tally.passages):
                own = counts(tally)
                scores += _bm25(own, norm, _KINDRED_WEIGHT * rarity)
                kindred += own
        own = counts(self.own) if len(self.own.passages) else np.zeros_like(scores)
        scores += _bm25(own + _KINDRED_COUNT * kindred, norm, self.weight)


def _bm25(
    counts: NDArray[np.float64], norm: NDArray[np.float64], weight: float
) -> NDArray[np.float64]:
    """What a word with these counts adds to each passage."""
    scores: NDArray[np.float64] = weight * counts * (_K1 + 1) / (counts + norm)
    return scores


def _scored(
    cells: Cells, words: list[_Word], near: Near, blocks: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The passages of ``blocks``, ascending, and their scores."""
    passages = cells.passage[blocks]
    norm = cells.norm[passages]  # that of room is some passage's, and never looked at
    scores = np.zeros(passages.shape)
    for word in words:
        word.score(lambda tally: cells.spread(tally, blocks), norm, scores)
    kept = passages >= 0
    found, own = passages[kept], scores[kept]
    at = np.searchsorted(near[0], found)
    at[at == len(near[0])] = 0
    if len(near[0]):
        own += np.where(near[0][at] == found, near[1][at], 0.0)
    return found, own


def _likely(cells: Cells, words: list[_Word], near: Near, most: int) -> NDArray[np.int64]:
    """The blocks, ascending, in which the ``most`` best passages are."""
    likely = np.ones(cells.num_blocks, np.bool_)
    for slightest in (_SLIGHT, 0.0):  # words of less weight are not looked at, as long as that does
        limits = _limits(cells, words, near, slightest)
        count = min(cells.num_blocks, 4 * most)
        first = np.sort(np.argpartition(-limits, count - 1)[:count])
        _, scores = _scored(cells, words, near, first)
        least = np.partition(scores, -most)[-most] if len(scores) >= most else 0.0
        likely = limits >= least if least > 0 else limits > 0
        if np.count_nonzero(likely) <= cells.num_blocks * _WORTH:
            break
    if not least > 0:  # too few have what is asked for: the first of the others follow
        last = cells.place[min(2 * most, len(cells.place) - 1)]
        likely[: last // cells.block + 1] = True
    return np.flatnonzero(likely)


def _limits(cells: Cells, words: list[_Word], near: Near, slightest: float) -> NDArray[np.float64]:
    """(num_blocks,) at least what any passage of each block scores; of words that weigh less than
    ``slightest`` what they can add anywhere."""
    limits, anywhere = np.zeros(cells.num_blocks), 0.0
    for word in words:
        if word.weight < slightest and not word.kin:
            anywhere += word.weight * (_K1 + 1)
        else:
            word.score(cells.by_block, cells.least_norm, limits)
    closest = np.zeros_like(limits)
    np.maximum.at(closest, cells.place[near[0]] // cells.block, near[1])
    return (limits + closest + anywhere) * (1 + 1e-9)  # more than rounding can add


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
