"""Lists that teach recall: to find an earlier word and give what followed it.

A list has a few entries, put together by chance, and has all of them several times, each time in
another order: what followed before is all that tells what follows now. Half of them have pairs of
words, every other one of those with text between the pairs. The others have lines: a word and a
value of up to five tokens of a few kinds, with the same tokens around the two in each line of a
list, so that a value is not told by the token before it alone.

Lists have their entries as often as there is room for, since with more to be foretold it is learnt
several times sooner. As many are short as long.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import count

import numpy as np
from numpy.typing import NDArray

from nazx_cli.errors import UsageError
from nazx_cli.evaluation.probes import plain_words
from nazx_cli.tokenizer import Tokenizer

_FEW = 2  # entries of a list, at least
_OFTEN = 16  # times that a list has its entries, at most
_VALUE = 5  # tokens of a line's value, at most
_KINDS = 10  # of tokens in the values of a list
_FRAME = 3  # tokens at each of the three places around word and value, at most
_LINE = 1 + _VALUE + 3 * _FRAME  # tokens of a line, at most

Entries = list[tuple[int, ...]]


def describe(share: float) -> str:
    """What a card tells of lists that were added, so many tokens for each of the data."""
    return (
        f"For each token of the data below {share:g} of lists were added, of word pairs and of "
        f"lines with a word and a value, made by chance, in which each comes 2 to {_OFTEN} times."
    )


def with_lists(
    ids: NDArray[np.int32], tokenizer: Tokenizer, tokens: int, longest: int, end: int
) -> NDArray[np.int32]:
    """``ids`` (N,), documents with ``end`` behind each, and among them about so many ``tokens`` of
    lists, of at most ``longest`` tokens each."""
    texts = np.split(ids, np.flatnonzero(ids == end) + 1)
    parts = [*texts, *recall_lists(ids[ids != end], tokenizer, tokens, longest, end)]
    random.Random(0).shuffle(parts)
    return np.concatenate(parts)


def recall_lists(
    text: NDArray[np.int32], tokenizer: Tokenizer, tokens: int, longest: int, end: int
) -> Iterator[NDArray[np.int32]]:
    """About so many ``tokens`` of lists with ``end`` behind each, of at most ``longest``; what
    stands between pairs is taken from ``text`` (N,). ``UsageError`` where there are too few words
    to make pairs of, or too little room for them."""
    words, rng = plain_words(tokenizer), random.Random(0)
    every = sorted(set(tokenizer.whole_words.values()) | set(np.unique(text).tolist()))
    if min((longest - 1) // 4, len(words) // 2) < _FEW:
        raise UsageError("there are too few words for lists of pairs", "raise --vocab or --context")
    for number in count():
        if tokens <= 0:
            return
        if number % 2 and longest > 2 * _FEW * _LINE:
            entries = _lines(words, every, longest, rng)
        else:
            entries = _pairs(words, longest, rng)
        made = [*_repeated(entries, text, longest - 1, rng, spaced=number % 4 == 2), end]
        yield np.asarray(made, np.int32)
        tokens -= len(made)


def _pairs(words: Sequence[int], longest: int, rng: random.Random) -> Entries:
    size = _size(min((longest - 1) // 4, len(words) // 2), rng)
    drawn = rng.sample(words, 2 * size)
    return list(zip(drawn[::2], drawn[1::2], strict=True))


def _lines(words: Sequence[int], every: Sequence[int], longest: int, rng: random.Random) -> Entries:
    kinds = rng.sample(every, min(len(every), _KINDS))
    before, between, after = (
        tuple(rng.sample(every, min(len(every), rng.randint(0, _FRAME)))) for _ in range(3)
    )
    value = rng.randint(1, _VALUE)
    cost = len(before) + 1 + len(between) + value + len(after)
    size = _size(min((longest - 1) // (2 * cost), len(words)), rng)
    return [
        (*before, word, *between, *rng.choices(kinds, k=value), *after)
        for word in rng.sample(words, size)
    ]


def _size(most: int, rng: random.Random) -> int:
    return int(_FEW * (most / _FEW) ** rng.random())


def _repeated(
    entries: Entries, text: NDArray[np.int32], room: int, rng: random.Random, *, spaced: bool
) -> Iterator[int]:
    """The tokens of a list: its entries over and over; ``spaced``: with text behind each."""
    cost = sum(map(len, entries))
    rounds, gap = min(_OFTEN, room // cost), 0
    if spaced:
        rounds = rng.randint(2, rounds)
        gap = (room // rounds - cost) // len(entries)  # behind each entry, at most
    for _ in range(rounds):
        for entry in rng.sample(entries, len(entries)):
            yield from entry
            yield from _stretch(text, rng.randint(0, gap), rng)


def _stretch(text: NDArray[np.int32], tokens: int, rng: random.Random) -> list[int]:
    """So many ``tokens`` of the text, or all of it, from a place of chance."""
    tokens = min(tokens, len(text))
    at = rng.randint(0, len(text) - tokens)
    stretch: list[int] = text[at : at + tokens].tolist()
    return stretch
