"""Lists that teach recall: to find an earlier word and give what followed it.

A list has a few pairs of words, put together by chance, and has all of them several times, each
time in another order: what followed a word before is all that tells what follows it now. In every
third list text stands between the pairs; the others have them as often as there is room for, since
with more to be foretold it is learnt several times sooner. As many lists are short as long.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count

import numpy as np
from numpy.typing import NDArray

from nazx_cli.errors import UsageError
from nazx_cli.evaluation.probes import plain_words
from nazx_cli.tokenizer import Tokenizer

_FEW = 2  # pairs of a list, at least
_OFTEN = 16  # times that a list has its pairs, at most


def with_lists(
    ids: NDArray[np.int32], tokenizer: Tokenizer, tokens: int, longest: int, end: int
) -> NDArray[np.int32]:
    """``ids`` (N,), documents with ``end`` behind each, and among them about so many ``tokens`` of
    lists, of at most ``longest`` tokens each."""
    texts = np.split(ids, np.flatnonzero(ids == end) + 1)
    parts = [*texts, *pair_lists(ids[ids != end], tokenizer, tokens, longest, end)]
    random.Random(0).shuffle(parts)
    return np.concatenate(parts)


def pair_lists(
    text: NDArray[np.int32], tokenizer: Tokenizer, tokens: int, longest: int, end: int
) -> Iterator[NDArray[np.int32]]:
    """About so many ``tokens`` of lists with ``end`` behind each, of at most ``longest``; what
    stands between pairs is taken from ``text`` (N,). ``UsageError`` where there are too few words
    to make pairs of, or too little room for them."""
    words, rng = plain_words(tokenizer), random.Random(0)
    many = min((longest - 1) // 4, len(words) // 2)
    if many < _FEW:
        raise UsageError("there are too few words for lists of pairs", "raise --vocab or --context")
    for number in count():
        if tokens <= 0:
            return
        size = int(_FEW * (many / _FEW) ** rng.random())
        rounds, gap = min(_OFTEN, (longest - 1) // (2 * size)), 0
        if number % 3 == 2:
            rounds = rng.randint(2, rounds)
            gap = (longest - 1) // (size * rounds) - 2  # behind each pair, at most
        drawn = rng.sample(words, 2 * size)
        pairs = list(zip(drawn[::2], drawn[1::2], strict=True))
        found: list[int] = []
        for _ in range(rounds):
            for pair in rng.sample(pairs, size):
                found.extend(pair)
                found.extend(_stretch(text, rng.randint(0, gap), rng))
        yield np.asarray([*found, end], np.int32)
        tokens -= len(found) + 1


def _stretch(text: NDArray[np.int32], tokens: int, rng: random.Random) -> list[int]:
    """So many ``tokens`` of the text, or all of it, from a place of chance."""
    tokens = min(tokens, len(text))
    at = rng.randint(0, len(text) - tokens)
    stretch: list[int] = text[at : at + tokens].tolist()
    return stretch
