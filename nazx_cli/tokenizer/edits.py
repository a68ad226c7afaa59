"""Tokens of an edited text: only what is around the edit is encoded."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from nazx_cli.tokenizer.tokens import Progress, Tokens, joined

if TYPE_CHECKING:
    from nazx_cli.tokenizer.cutting import Cutting

_BLOCK = 1 << 16  # characters compared at a time


def encode_edited(
    encode: Callable[[str, Progress | None], Tokens],
    cutting: Cutting,
    old: str,
    tokens: Tokens,
    new: str,
    on_progress: Progress | None = None,
) -> Tokens:
    """What ``encode`` gives for ``new``, from the ``tokens`` it gave for ``old``."""
    same = shared_prefix(old, new)
    begin = cutting.last(new, same)
    # The two ends may overlap ("aa" to "aaa"): a character is taken over once.
    same = shared_suffix(old, new, min(len(old), len(new)) - same)
    end = cutting.first(new, len(new) - same) if same else len(new)
    moved = len(new) - len(old)
    # numpy would turn all starts into int64 to look for a number of Python's.
    until = int(np.searchsorted(tokens.starts, np.int32(begin)))
    since = len(tokens)
    if end < len(new):
        since = int(np.searchsorted(tokens.starts, np.int32(end - moved)))

    def report(done: int, _: int) -> None:
        if on_progress:
            on_progress(begin + done, len(new))

    middle = encode(new[begin:end], report)
    if on_progress:
        on_progress(len(new), len(new))
    return joined(
        (
            Tokens(tokens.ids[:until], tokens.starts[:until]),
            Tokens(middle.ids, middle.starts + np.int32(begin)),
            Tokens(tokens.ids[since:], tokens.starts[since:] + np.int32(moved)),
        )
    )


def shared_prefix(one: str, other: str) -> int:
    """Characters that both begin with."""
    limit = min(len(one), len(other))
    at = 0
    while at < limit and one[at : at + _BLOCK] == other[at : at + _BLOCK]:
        at += _BLOCK
    if at >= limit:
        return limit
    return at + _count(lambda n: one[at : at + n] == other[at : at + n], min(_BLOCK, limit - at))


def shared_suffix(one: str, other: str, limit: int) -> int:
    """Characters that both end with, ``limit`` at most."""
    a, b = len(one), len(other)
    at = 0
    while at < limit:
        size = min(_BLOCK, limit - at)
        if one[a - at - size : a - at] != other[b - at - size : b - at]:
            break
        at += size
    size = min(_BLOCK, limit - at)
    return at + _count(lambda n: one[a - at - n : a - at] == other[b - at - n : b - at], size)


def _count(equal: Callable[[int], bool], limit: int) -> int:
    """The greatest n up to ``limit`` for which ``equal`` holds, as it does for all below."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if equal(middle) else (low, middle - 1)
    return low
