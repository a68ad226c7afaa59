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

A word of the text may be one token, in any of several forms (with a space before it, with a
capital), or a chain of tokens. Both are found from the lists: tokens that begin a word like the
one sought are followed, list by list, to tokens that carry the word on, until it ends.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from nazx_cli.reading.words import (
    LONGEST_SUFFIX,
    QUESTION_WORDS,
    SPACED_WORD,
    STOP_WORDS,
    WORD,
    is_unspaced,
    is_word_character,
    kindred_stems,
    related_stems,
    stem,
    words,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nazx_cli.reading.library import Library

_BROKEN = "\ufffd"  # what a token decodes to that holds part of a character
_NOWHERE = np.zeros(0, np.int64)
_STRETCH = 1 << 18  # characters looked at in one go
_GAP = 16  # characters between two stretches that are looked at as one
_FEW = 64  # characters for which numpy takes longer than a loop
_K1, _B = 0.8, 0.75
_SHARE, _REACH = 0.5, 300  # a passage d tokens away gets share * exp(-d / reach) of a count ...
_FARTHEST = 700  # ... up to this many tokens away
_NEAR = 10  # tokens: words this close count as together, closer ones more
_MOST_NEAR = 8192  # occurrences: commoner words are left out of the search for close pairs
_QUESTION_WEIGHT, _STOP_WEIGHT = 0.25, 0.1
_KINDRED_COUNT = 0.2  # of an occurrence: what a word about the same thing adds to the count
_KINDRED_WEIGHT = 0.05  # and what it weighs by itself


class Matcher:
    """Finds the words of a library that have a given stem.

    Works for any tokenizer whose tokens, decoded one by one, give the text they stand for, and
    for tokens that hold part of a character: words with such tokens are read from the text.
    """

    def __init__(self, library: Library) -> None:
        lists = library.posting_lists
        self._library = library
        self._positions: NDArray[np.int32] = lists.positions.numpy()
        self._offsets: NDArray[np.int64] = lists.offsets.numpy()
        self._distinct: NDArray[np.int32] = lists.distinct.numpy()
        self._joined = np.append(library.joined, False)
        self._found: dict[str, NDArray[np.int64]] = {}
        self._broken: list[int] = []
        self._pieces: list[list[str]] = []  # words in each distinct token
        for u, token in enumerate(self._distinct.tolist()):
            text = library.tokenizer.decode([token])
            if _BROKEN in text:
                self._broken.append(u)
            self._pieces.append([] if _BROKEN in text else words(text))
        # (word, distinct token, which of the token's words), sorted for look-up by prefix
        self._sorted = sorted(
            (word, u, k) for u, found in enumerate(self._pieces) for k, word in enumerate(found)
        )

    def find(self, target: str) -> NDArray[np.int64]:
        """Positions of the tokens in which a word with the stem ``target`` begins, ascending."""
        if target not in self._found:
            chains: list[NDArray[np.int64]] = []
            for word, u, k in self._candidates(target):
                at = self._postings(u)
                if k == 0:
                    at = at[~self._joined[at]]
                if k < len(self._pieces[u]) - 1:  # ends within the token
                    if stem(word) == target:
                        chains.append(at)
                else:
                    self._follow(at, 1, word, target, chains)
            chains += self._split_words.get(target, ())
            self._found[target] = np.unique(np.concatenate([_NOWHERE, *chains]))
        return self._found[target]

    def _follow(
        self,
        at: NDArray[np.int64],
        length: int,
        text: str,
        target: str,
        chains: list[NDArray[np.int64]],
    ) -> None:
        """Keep those of the chains ``at``, ``length`` tokens reading ``text``, that end as the
        target does, and carry the others on."""
        goes_on = self._joined[at + length]
        if stem(text) == target:
            chains.append(at[~goes_on])
        at = at[goes_on]
        if not len(at):
            return
        following = self._library.ids[at + length]
        for token in np.unique(following):
            pieces = self._pieces[int(np.searchsorted(self._distinct, token))]
            if not pieces or not _may_become(text + pieces[0], target):
                continue
            chosen = at[following == token]
            if len(pieces) > 1:
                if stem(text + pieces[0]) == target:
                    chains.append(chosen)
            else:
                self._follow(chosen, length + 1, text + pieces[0], target, chains)

    def _candidates(self, target: str) -> Iterator[tuple[str, int, int]]:
        """Words of distinct tokens that a word with the stem ``target`` may begin with."""
        for end in range(1, len(target) - 1):
            yield from self._beginning_with(target[:end], longest=end)
        yield from self._beginning_with(target[:-1] or target, len(target) + LONGEST_SUFFIX)

    def _beginning_with(self, prefix: str, longest: int) -> Iterator[tuple[str, int, int]]:
        at = bisect_left(self._sorted, (prefix, -1, -1))
        while at < len(self._sorted) and self._sorted[at][0].startswith(prefix):
            if len(self._sorted[at][0]) <= longest:
                yield self._sorted[at]
            elif longest == len(prefix):
                return  # exact matches come first
            at += 1

    def _postings(self, u: int) -> NDArray[np.int64]:
        return self._positions[self._offsets[u] : self._offsets[u + 1]].astype(np.int64)

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """(U,) how much each distinct token tells: its inverse passage frequency, 0 for tokens
        that are no word of content and for those that only one passage has."""
        cuts, distinct = self._library.cuts, len(self._distinct)
        passages = np.searchsorted(cuts, self._positions, side="right")
        owners = np.repeat(np.arange(distinct), np.diff(self._offsets))
        first = np.ones(len(owners), np.bool_)  # of a token's occurrences in a passage
        first[1:] = (owners[1:] != owners[:-1]) | (passages[1:] != passages[:-1])
        holding = np.bincount(owners[first], minlength=distinct)
        content = np.fromiter(map(_is_content, self._pieces), np.bool_, distinct)
        weights: NDArray[np.float64] = np.log1p((len(cuts) - 1) / np.maximum(holding, 1))
        return weights * (content & (holding > 1))

    @cached_property
    def _split_words(self) -> dict[str, list[NDArray[np.int64]]]:
        """Stems of the words that have a character split between tokens, and where they begin."""
        found: defaultdict[str, list[NDArray[np.int64]]] = defaultdict(list)
        library = self._library
        broken = np.sort(np.concatenate([_NOWHERE, *map(self._postings, self._broken)]))
        for d, document in enumerate(library.documents):
            first, end = int(library.bounds[d]), int(library.bounds[d + 1])
            low, high = np.searchsorted(broken, (first, end))
            own = document.starts
            for stretch in _stretches(document.text, own, broken[low:high] - first):
                for word, begins in _words_in(document.text, *stretch):
                    # int32 as they are: else numpy would turn all of its own into int64 each time
                    at = np.searchsorted(own, begins, side="right") - 1
                    found[stem(word)].append(first + np.searchsorted(own, own[at], side="left"))
        return dict(found)


def _is_content(pieces: list[str]) -> bool:
    if len(pieces) != 1:
        return False
    (word,) = pieces
    return len(word) >= 3 and not word.isdigit() and word not in STOP_WORDS


def _stretches(
    text: str, starts: NDArray[np.int32], tokens: NDArray[np.int64]
) -> Iterator[tuple[int, int]]:
    """The characters that ``tokens``, ascending, touch, and small gaps between them, as stretches
    (begin, end) that cut no word and do not overlap; a long one comes in parts."""
    if not len(tokens):
        return
    lows = starts[tokens].astype(np.int64)
    after = np.append(starts, np.int32(len(text)))[tokens + 1].astype(np.int64)
    highs = np.minimum(np.maximum(after, lows) + 1, len(text))
    apart = np.flatnonzero(lows[1:] > highs[:-1] + _GAP) + 1
    done = 0
    for low, high in zip(
        lows[np.append(0, apart)].tolist(),
        highs[np.append(apart, len(lows)) - 1].tolist(),
        strict=True,
    ):
        begin = max(low, done)
        while begin < high:
            while begin > done and _spaced(text[begin]) and _spaced(text[begin - 1]):
                begin -= 1
            done = min(begin + _STRETCH, high)
            while done < len(text) and _spaced(text[done - 1]) and _spaced(text[done]):
                done += 1
            yield begin, done
            begin = done


def _words_in(text: str, begin: int, end: int) -> Iterator[tuple[str, NDArray[np.int32]]]:
    """Words of a stretch of the text that cuts none, and where they begin; most come once only."""
    if end - begin < _FEW:
        for match in WORD.finditer(text, begin, end):
            yield match.group().casefold(), np.array([match.start()], np.int32)
        return
    spaced: defaultdict[str, list[int]] = defaultdict(list)
    for match in SPACED_WORD.finditer(text, begin, end):
        spaced[match.group().casefold()].append(match.start())
    yield from ((word, np.array(begins, np.int32)) for word, begins in spaced.items())
    codes = np.frombuffer(text[begin:end].encode("utf-32-le", "surrogatepass"), np.uint32)
    order = np.argsort(codes, kind="stable").astype(np.int32)
    distinct, firsts = np.unique(codes[order], return_index=True)
    for code, places in zip(distinct.tolist(), np.split(order, firsts[1:]), strict=True):
        if is_unspaced(chr(code)):
            yield chr(code).casefold(), np.int32(begin) + places


def _spaced(character: str) -> bool:
    return is_word_character(character) and not is_unspaced(character)


def _may_become(text: str, target: str) -> bool:
    """Whether a word that begins with ``text`` may have the stem ``target``."""
    shared = min(len(text), len(target) - 1)
    return len(text) <= len(target) + LONGEST_SUFFIX and text[:shared] == target[:shared]


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


def occurrences(library: Library, term: Term) -> NDArray[np.int64]:
    """Positions at which ``term`` stands in ``library.ids``, ascending."""
    found = [library.matcher.find(stem) for stem in sorted(term.stems)]
    return found[0] if len(found) == 1 else np.unique(np.concatenate(found))


def rank(library: Library, question: str) -> Ranking:
    """Rank all passages of ``library``."""
    scores = np.zeros(len(library.cuts) - 1)
    if not len(scores):
        return Ranking(scores, np.zeros(0, np.int64))
    bm25 = _Bm25(library)
    weighted: list[tuple[NDArray[np.int64], float]] = []
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

    def counts(self, at: NDArray[np.int64]) -> NDArray[np.float64]:
        """How many of the positions ``at`` each passage holds."""
        passages = _passages_of(self._library, at)
        return np.bincount(passages, minlength=len(self._norm)).astype(np.float64)

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


def _passages_of(library: Library, at: NDArray[np.int64]) -> NDArray[np.int64]:
    passages: NDArray[np.int64] = np.searchsorted(library.cuts, at, side="right") - 1
    return passages


def _together(
    library: Library, weighted: list[tuple[NDArray[np.int64], float]]
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
