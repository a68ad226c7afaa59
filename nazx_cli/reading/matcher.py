"""Finding words on the posting lists of tokens.

A word of the text may be one token, in any of several forms (with a space before it, with a
capital), or a chain of tokens. Both are found from the lists: tokens that begin a word like the
one sought are followed, list by list, to tokens that carry the word on, until it ends.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Protocol

import numpy as np

from nazx_cli.reading.tallies import Counted, Positions, Tally
from nazx_cli.reading.words import (
    LONGEST_SUFFIX,
    SPACED_WORD,
    STOP_WORDS,
    WORD,
    is_unspaced,
    is_word_character,
    script,
    stem,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nazx_cli.reading.library import Library
    from nazx_cli.reading.tokenized import TokenizedDocument
    from nazx_cli.tokenizer import Tokenizer

_BROKEN = "\ufffd"  # what a token decodes to that holds part of a character
_NOWHERE = np.zeros(0, np.int32)
_STRETCH = 1 << 18  # characters, or tokens, looked at in one go
_GAP = 16  # characters between two stretches that are looked at as one
_FEW = 1 << 12  # characters for which numpy takes longer than a loop


class Words(Protocol):
    """The words of a library. Words with a character split between tokens are not among those
    that ``begins`` looks at: see ``can_tell``."""

    def find(self, target: str) -> Positions:
        """Positions of the tokens in which a word with the stem ``target`` begins, ascending."""

    def tally(self, target: str) -> Tally:
        """How often they stand in which passages."""

    def has(self, target: str) -> bool:
        """Whether there are any."""

    def begins(self, start: str, *, spelled: bool = False) -> bool:
        """Whether a word of theirs begins with ``start``, in either case, or ``spelled`` so."""

    def can_tell(self, word: str) -> bool:
        """Whether ``begins`` is right about ``word``: no character of it may be split."""

    @property
    def scripts(self) -> frozenset[str]:
        """The alphabets that words of the library begin in."""

    @property
    def initials(self) -> tuple[int, int]:
        """How many words of the library begin with a capital, and how many with a letter."""


class Matcher:
    """``Words`` of documents whose tokens are at hand.

    Works for any tokenizer whose tokens, decoded one by one, give the text they stand for, and
    for tokens that hold part of a character: words with such tokens are read from the text.
    """

    def __init__(self, library: Library) -> None:
        lists = library.posting_lists
        # Its parts and not the library, which holds this: a circle is freed late, if ever.
        self._ids, self._cuts, self._bounds = library.ids, library.cuts, library.bounds
        self._blocks = library.blocks
        self._documents, self._vocab_size = library.documents, library.tokenizer.vocab_size
        self._positions: NDArray[np.int32] = lists.positions.numpy()
        self._offsets: NDArray[np.int64] = lists.offsets.numpy()
        self._distinct: NDArray[np.int32] = lists.distinct.numpy()
        self._joined = library.joined
        self._found: dict[str, NDArray[np.int32]] = {}
        self._broken: list[int] = []
        self._spelled: list[list[str]] = []  # words in each distinct token
        for u, token in enumerate(self._distinct.tolist()):
            found = token_words(library.tokenizer, token)
            if found is None:
                self._broken.append(u)
            self._spelled.append(found or [])
        self._pieces = [[word.casefold() for word in found] for found in self._spelled]
        # (word, distinct token, which of the token's words), sorted for look-up by prefix
        self._sorted = sorted(
            (word, u, k) for u, found in enumerate(self._pieces) for k, word in enumerate(found)
        )

    def find(self, target: str) -> NDArray[np.int32]:
        """Positions of the tokens in which a word with the stem ``target`` begins, ascending, as
        int32 like the posting lists: a common word of a long text stands in millions."""
        if target not in self._found:
            chains: list[NDArray[np.int32]] = []
            for word, u, k in self._candidates(target):
                at = self._postings(u)
                if k == 0:
                    at = at[~self._joined[at]]
                if k < len(self._pieces[u]) - 1:  # ends within the token
                    if stem(word) == target:
                        chains.append(at)
                else:
                    chains += self._reading(at, word, target)
            chains += self._split_words.get(target, ())
            found = np.concatenate([_NOWHERE, *chains])
            in_order = bool(np.all(found[1:] > found[:-1]))
            self._found[target] = found if in_order else np.unique(found)
        return self._found[target]

    def tally(self, target: str) -> Tally:
        """See ``Words``."""
        found, cuts = self.find(target), self._cuts
        if len(found) < len(cuts):
            own = np.searchsorted(cuts, found, side="right") - 1
            passages, counts = np.unique(own, return_counts=True)
        else:  # of what stands everywhere there is more to look up than there are passages
            every = np.diff(np.searchsorted(found, cuts.astype(found.dtype, copy=False)))
            passages = np.flatnonzero(every)
            counts = every[passages]
        return Counted(self._blocks, passages.astype(np.int32), counts)

    def has(self, target: str) -> bool:
        """See ``Words``."""
        return len(self.find(target)) > 0

    def can_tell(self, word: str) -> bool:
        """See ``Words``."""
        return word.isascii() or not self._broken

    def begins(self, start: str, *, spelled: bool = False) -> bool:
        """See ``Words``."""
        wanted = start if spelled else start.casefold()
        pieces = self._spelled if spelled else self._pieces
        folded = start.casefold()
        shorter = (self._beginning_with(folded[:end], longest=end) for end in range(1, len(folded)))
        for _, u, k in chain(self._beginning_with(folded), *shorter):
            at, word = self._postings(u), pieces[u][k]
            at = at[~self._joined[at]] if k == 0 else at
            goes_on = k == len(pieces[u]) - 1 and wanted.startswith(word)
            if len(at) and word.startswith(wanted):
                return True
            if goes_on and self._goes_on(at, word, wanted, pieces):
                return True
        return False

    def _goes_on(
        self, at: NDArray[np.int32], text: str, wanted: str, pieces: list[list[str]]
    ) -> bool:
        """Whether one of the tokens ``at``, which read ``text``, goes on to read ``wanted``."""
        open_chains = [(at, 1, text)]
        while open_chains:
            at, length, text = open_chains.pop()
            for token, chosen in self._following(at, length):
                found = pieces[token]
                longer = text + found[0] if found else ""
                if found and longer.startswith(wanted):
                    return True
                if len(found) == 1 and wanted.startswith(longer):
                    open_chains.append((chosen, length + 1, longer))
        return False

    @cached_property
    def scripts(self) -> frozenset[str]:
        """See ``Words``."""
        return frozenset(script(found[0][0]) for found in self._spelled if found)

    @cached_property
    def initials(self) -> tuple[int, int]:
        """See ``Words``."""
        capital = [bool(found) and found[0][0].isupper() for found in self._spelled]
        letter = [bool(found) and found[0][0].isalpha() for found in self._spelled]
        begins = ~self._joined[self._positions]
        owners = np.repeat(np.arange(len(self._distinct)), np.diff(self._offsets))[begins]
        counts = np.bincount(owners, minlength=len(self._distinct))
        return int(counts[capital].sum()), int(counts[letter].sum())

    def _reading(
        self, at: NDArray[np.int32], text: str, target: str
    ) -> Iterator[NDArray[np.int32]]:
        """Those of the tokens ``at``, which read ``text``, whose word has the stem ``target``."""
        open_chains = [(at, 1, text)]
        while open_chains:
            at, length, text = open_chains.pop()
            if stem(text) == target:
                yield at[~self._carried_on(at + length)]
            for token, chosen in self._following(at, length):
                pieces = self._pieces[token]
                longer = text + pieces[0] if pieces else ""
                if not pieces or not _may_become(longer, target):
                    continue
                if len(pieces) == 1:
                    open_chains.append((chosen, length + 1, longer))
                elif stem(longer) == target:
                    yield chosen

    def _following(
        self, at: NDArray[np.int32], length: int
    ) -> Iterator[tuple[int, NDArray[np.int32]]]:
        """Numbers of the tokens in which the words that begin ``at``, ``length`` tokens so far, go
        on, and where each does."""
        at = at[self._carried_on(at + length)]
        following = self._ids[at + length]
        for token in np.unique(following):
            yield int(np.searchsorted(self._distinct, token)), at[following == token]

    def _carried_on(self, at: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Whether a word goes on in each of the tokens ``at``; none does behind the last one."""
        last = len(self._joined) - 1
        return self._joined[np.minimum(at, last)] & (at <= last)

    def _candidates(self, target: str) -> Iterator[tuple[str, int, int]]:
        """Words of distinct tokens that a word with the stem ``target`` may begin with."""
        for end in range(1, len(target) - 1):
            yield from self._beginning_with(target[:end], longest=end)
        yield from self._beginning_with(target[:-1] or target, len(target) + LONGEST_SUFFIX)

    def _beginning_with(
        self, prefix: str, longest: int | None = None
    ) -> Iterator[tuple[str, int, int]]:
        at = bisect_left(self._sorted, (prefix, -1, -1))
        while at < len(self._sorted) and self._sorted[at][0].startswith(prefix):
            if longest is None or len(self._sorted[at][0]) <= longest:
                yield self._sorted[at]
            elif longest == len(prefix):
                return  # exact matches come first
            at += 1

    def _postings(self, u: int) -> NDArray[np.int32]:
        return self._positions[self._offsets[u] : self._offsets[u + 1]]

    @cached_property
    def _split_words(self) -> dict[str, list[NDArray[np.int32]]]:
        """Stems of the words that have a character split between tokens, and where they begin."""
        found: defaultdict[str, list[NDArray[np.int32]]] = defaultdict(list)
        broken = np.zeros(self._vocab_size, np.bool_)
        broken[self._distinct[self._broken]] = True
        for first, document in zip(self._bounds.tolist(), self._documents, strict=False):
            own = document.starts
            for word, begins in _words_in(document.text, _stretches(document, broken)):
                tokens = tokens_at(own, begins)
                found[stem(word.casefold())].append((first + tokens).astype(np.int32))
        return dict(found)


def telling(holding: NDArray[np.int64], passages: int, tokenizer: Tokenizer) -> NDArray[np.float64]:
    """(vocab_size,) how much each token tells, of which ``holding`` (vocab_size,) passages of all
    hold each: see ``Library.token_weights``."""
    weights = np.zeros(len(holding))
    several = np.flatnonzero(holding > 1)
    content = [_is_content(token_words(tokenizer, token) or []) for token in several.tolist()]
    told = several[np.asarray(content, np.bool_)]
    weights[told] = np.log1p(passages / holding[told])
    return weights


def token_words(tokenizer: Tokenizer, token: int) -> list[str] | None:
    """The words that a token spells, by itself; None for one that holds part of a character."""
    text = tokenizer.decode([token])
    return None if _BROKEN in text else WORD.findall(text)


def _is_content(pieces: list[str]) -> bool:
    if len(pieces) != 1:
        return False
    word = pieces[0].casefold()
    return len(word) >= 3 and not word.isdigit() and word not in STOP_WORDS


def _stretches(document: TokenizedDocument, broken: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """The characters that tokens with ``broken[id]`` touch, and small gaps between them, as
    stretches (begin, end) that cut no word and do not overlap; a long one comes in parts."""
    text, done = document.text, 0
    for low, high in _touched(document, broken):
        begin = max(low, done)
        while begin < high:
            while begin > done and _spaced(text[begin]) and _spaced(text[begin - 1]):
                begin -= 1
            done = min(begin + _STRETCH, high)
            while done < len(text) and _spaced(text[done - 1]) and _spaced(text[done]):
                done += 1
            yield begin, done
            begin = done


def _touched(document: TokenizedDocument, broken: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Characters (begin, end) that such tokens touch, in order, some thousand tokens at a time."""
    ids, starts, length = document.ids, document.starts, len(document.text)
    for since in range(0, len(ids), _STRETCH):
        tokens = since + np.flatnonzero(broken[ids[since : since + _STRETCH]])
        if not len(tokens):
            continue
        lows = starts[tokens]
        after = np.where(
            tokens + 1 < len(ids), starts[np.minimum(tokens + 1, len(ids) - 1)], length
        )
        highs = np.minimum(np.maximum(after, lows) + 1, length)
        apart = np.flatnonzero(lows[1:] > highs[:-1] + _GAP) + 1
        begins, ends = lows[np.append(0, apart)], highs[np.append(apart, len(lows)) - 1]
        yield from zip(begins.tolist(), ends.tolist(), strict=True)


def tokens_at(starts: NDArray[np.int32], characters: NDArray[np.int32]) -> NDArray[np.int64]:
    """The tokens, beginning at ``starts`` (n,), in which ``characters`` stand: the first of those
    that make up one character. int32 both: else numpy would turn all starts into int64."""
    at = np.maximum(np.searchsorted(starts, characters, side="right") - 1, 0)
    return np.searchsorted(starts, starts[at], side="left")


def _words_in(
    text: str, stretches: Iterable[tuple[int, int]]
) -> Iterator[tuple[str, NDArray[np.int32]]]:
    """Words of stretches of the text that cut none, as they are spelled, and where they begin:
    those of many short stretches together, since to look up one costs as much as to look up
    many."""
    few: defaultdict[str, list[int]] = defaultdict(list)
    count = 0  # of the words in it
    for begin, end in stretches:
        if end - begin >= _FEW:
            yield from _words_of_many(text, begin, end)
            continue
        for match in WORD.finditer(text, begin, end):
            few[match.group()].append(match.start())
            count += 1
        if count >= _STRETCH:
            yield from _as_arrays(few)
            few.clear()
            count = 0
    yield from _as_arrays(few)


def _as_arrays(places: dict[str, list[int]]) -> Iterator[tuple[str, NDArray[np.int32]]]:
    return ((word, np.array(begins, np.int32)) for word, begins in places.items())


def _words_of_many(text: str, begin: int, end: int) -> Iterator[tuple[str, NDArray[np.int32]]]:
    spaced: defaultdict[str, list[int]] = defaultdict(list)
    for match in SPACED_WORD.finditer(text, begin, end):
        spaced[match.group()].append(match.start())
    yield from _as_arrays(spaced)
    codes = np.frombuffer(text[begin:end].encode("utf-32-le", "surrogatepass"), np.uint32)
    order = np.argsort(codes, kind="stable").astype(np.int32)
    distinct, firsts = np.unique(codes[order], return_index=True)
    for code, places in zip(distinct.tolist(), np.split(order, firsts[1:]), strict=True):
        if is_unspaced(chr(code)):
            yield chr(code), np.int32(begin) + places


def _spaced(character: str) -> bool:
    return is_word_character(character) and not is_unspaced(character)


def _may_become(text: str, target: str) -> bool:
    """Whether a word that begins with ``text`` may have the stem ``target``."""
    shared = min(len(text), len(target) - 1)
    return len(text) <= len(target) + LONGEST_SUFFIX and text[:shared] == target[:shared]
