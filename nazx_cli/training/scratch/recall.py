"""Lists that teach recall: to find an earlier word and give what followed it.

A list has a few pairs of words, put together by chance, and has all of them several times, each
time in another order: what followed a word before is all that tells what follows it now. In every
other list text stands between the pairs. As many lists are short as long, for with few pairs it is
learnt first.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nazx_cli.errors import UsageError
from nazx_cli.evaluation.probes import plain_words
from nazx_cli.tokenizer import Tokenizer

_FEW = 2  # pairs of a list, at least
_OFTEN = 8  # times that a list has its pairs, at most


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
    many = min(longest // 4, len(words) // 2)
    if many < _FEW:
        raise UsageError("there are too few words for lists of pairs", "raise --vocab or --context")
    number = 0
    while tokens > 0:
        count = int(_FEW * (many / _FEW) ** rng.random())
        rounds = rng.randint(2, max(2, min(_OFTEN, longest // (4 * count))))
        room = (longest - 1) // (count * rounds) - 2 if number % 3 == 2 else 0  # behind each
        drawn = rng.sample(words, 2 * count)
        pairs = list(zip(drawn[::2], drawn[1::2], strict=True))
        found: list[int] = []
        for _ in range(rounds):
            for pair in rng.sample(pairs, count):
                found.extend(pair)
                gap = min(rng.randint(0, max(0, room)), len(text))
                at = rng.randint(0, len(text) - gap)
                found.extend(text[at : at + gap].tolist())
        yield np.asarray([*found, end], np.int32)
        tokens -= len(found) + 1
        number += 1
