"""Finding words on the posting lists of tokens.

A word of the text may be one token, in any of several forms (with a space before it, with a
capital), or a chain of tokens. Both are found from the lists: tokens that begin a word like the
one sought are followed, list by list, to tokens that carry the word on, until it ends.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from nazx_cli.reading.words import (
    LONGEST_SUFFIX,
    STOP_WORDS,
    WORD,
    is_unspaced,
    is_word_character,
    stem,
    words,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nazx_cli.reading.library import Library

_BROKEN = "\ufffd"  # what a token decodes to that holds part of a character


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
            chains.append(np.asarray(self._split_words.get(target, ()), dtype=np.int64))
            self._found[target] = np.unique(np.concatenate(chains))
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
    def _split_words(self) -> dict[str, list[int]]:
        """Stems of the words that have a character split between tokens, and where they begin."""
        found: dict[str, list[int]] = {}
        library = self._library
        for p in sorted(int(p) for u in self._broken for p in self._postings(u)):
            d = library.document_of(p)
            first, end = int(library.bounds[d]), int(library.bounds[d + 1])
            text = library.documents[d].text
            low = int(library.starts[p])
            high = int(library.starts[p + 1]) + 1 if p + 1 < end else len(text)
            for word, begin in _words_touching(text, low, max(high, low + 1)):
                own = library.starts[first:end]
                at = first + int(np.searchsorted(own, begin, side="right")) - 1
                at = first + int(np.searchsorted(own, own[at - first], side="left"))
                found.setdefault(stem(word), []).append(at)
        return found


def _is_content(pieces: list[str]) -> bool:
    if len(pieces) != 1:
        return False
    (word,) = pieces
    return len(word) >= 3 and not word.isdigit() and word not in STOP_WORDS


def _words_touching(text: str, low: int, high: int) -> Iterator[tuple[str, int]]:
    """Words that overlap the characters ``low`` to ``high``, and where they begin."""
    begin, end = low, min(high, len(text))
    while begin > 0 and _spaced(text[begin]) and _spaced(text[begin - 1]):
        begin -= 1
    while end < len(text) and _spaced(text[end - 1]) and _spaced(text[end]):
        end += 1
    for match in WORD.finditer(text, begin, end):
        yield match.group().casefold(), match.start()


def _spaced(character: str) -> bool:
    return is_word_character(character) and not is_unspaced(character)


def _may_become(text: str, target: str) -> bool:
    """Whether a word that begins with ``text`` may have the stem ``target``."""
    shared = min(len(text), len(target) - 1)
    return len(text) <= len(target) + LONGEST_SUFFIX and text[:shared] == target[:shared]
