"""Where an answer stands: the sentence, of those that were read, that has most of its words.

Words count by their rarity among these sentences: those of the answer most, then what the question
asks about, and both again for standing somewhere in the same passage. Given right answers this
finds a passage of the right section for nine questions in ten; how it was chosen and measured is
told by ``nazx help reading``.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence, Set
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nazx_cli.reading.sentences import sentences
from nazx_cli.reading.words import QUESTION_WORDS, STOP_WORDS, stem, words

if TYPE_CHECKING:
    from nazx_cli.reading.passages import Passage

MOST = 3
"""Sentences that are named for one answer, at most."""
_SAID = 3.0  # a word of the answer against one that the question asks about
_AROUND = 0.5  # a word elsewhere in the passage, against one in the sentence
_ENOUGH = 0.5  # share of an answer's own words that its passage has: else it does not stand there
_WIDEST = 80  # words of a sentence that are quoted; tables and lists have sentences without end
_LONG = 0.01  # for each word of a sentence: of equals the shorter one
_SHAPING = frozenset(map(stem, QUESTION_WORDS))
_NUMBER = re.compile(r"\[\d+\]")  # of a passage, where an answer names it


class Evidence(NamedTuple):
    """A sentence of a passage, on one line, of a very long one a part, and the share of what was
    said that the passage has: 0 to 1, words weighted by rarity, those of the question left out."""

    passage: Passage
    sentence: str
    share: float


def attributed(
    answer: str, question: str, passages: Sequence[Passage]
) -> tuple[tuple[Passage, str], ...]:
    """The sentences of ``passages`` that the sentences of ``answer`` stand on, in the order of the
    answer, each once, ``MOST`` at most; none for what no passage has half of."""
    grounds = Grounds(passages)
    found: dict[tuple[Passage, str], None] = {}
    for said in sentences(_NUMBER.sub(" ", answer)):
        best = grounds.best(said, question)
        if best is not None and best.share >= _ENOUGH:
            found[best.passage, best.sentence] = None
    return tuple(found)[:MOST]


def quoted(passage: Passage, answer: str, question: str = "") -> str:
    """The sentence of ``passage`` that shares most with ``answer``, and then with ``question``,
    on one line."""
    best = Grounds([passage]).best(answer, question)
    return passage.opening if best is None else best.sentence


class Grounds:
    """The sentences of ``passages``, by their words."""

    def __init__(self, passages: Iterable[Passage]) -> None:
        self._passages = list(passages)
        self._sentences: list[str] = []
        of: list[int] = []
        lengths: list[int] = []
        held = defaultdict[str, list[int]](list)
        for number, passage in enumerate(self._passages):
            for sentence in sentences(passage.text):
                stems = set(map(stem, words(sentence)))
                for each in stems:
                    held[each].append(len(of))
                lengths.append(len(stems))
                self._sentences.append(sentence)
                of.append(number)
        self._of = np.asarray(of, np.int64)  # the passage of each sentence
        self._held = {each: np.asarray(at) for each, at in held.items()}
        self._lengths = np.asarray(lengths, np.float64)  # words, each once

    def best(self, answer: str, question: str) -> Evidence | None:
        """The sentence that has most of ``answer``, the first of equals; None where there is none
        at all."""
        if not self._sentences:
            return None
        said = _content(answer)
        asked = _content(question) - _SHAPING
        own, around = -_LONG * self._lengths, np.zeros(len(self._passages))
        for each in sorted(said | asked):
            at = self._held.get(each)
            if at is not None:
                worth = self._weight(each) * (_SAID if each in said else 1)
                own[at] += worth
                around[np.unique(self._of[at])] += worth
        found = int(np.argmax(own + _AROUND * around[self._of]))
        passage = int(self._of[found])
        share = self._share(passage, said - asked - _SHAPING or said or asked)
        sentence = self._clipped(self._sentences[found], said)
        return Evidence(self._passages[passage], sentence, share)

    def _clipped(self, sentence: str, said: Set[str]) -> str:
        """Of a long sentence the first ``_WIDEST`` words in a row that hold most of ``said``."""
        parts = sentence.split()
        if len(parts) <= _WIDEST:
            return sentence
        stems = ({stem(word) for word in words(part)} & said for part in parts)
        worth = np.array([sum(map(self._weight, sorted(each))) for each in stems])
        sums = np.convolve(worth, np.ones(_WIDEST), "valid")
        first = int(np.argmax(sums > sums.max() - 1e-9))
        return " ".join(parts[first : first + _WIDEST])

    def _share(self, passage: int, own: Set[str]) -> float:
        """Of words ``own``, by their weights, those in a passage."""
        weights = {each: self._weight(each) for each in own}
        has = (each for each in own if each in self._held and passage in self._of[self._held[each]])
        return math.fsum(weights[each] for each in has) / (math.fsum(weights.values()) or 1.0)

    def _weight(self, word: str) -> float:
        """More, the fewer of the sentences have it."""
        return math.log1p(len(self._sentences) / max(0.5, len(self._held.get(word, ()))))


def _content(text: str) -> Set[str]:
    """The stems that say something; all of them where none does."""
    stems = frozenset(map(stem, words(text)))
    return stems - STOP_WORDS or stems
