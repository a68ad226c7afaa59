"""Which tokens carry on the word that the token before them is in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nazx_cli.reading.words import is_unspaced, is_word_character

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NONE, _SPACED, _UNSPACED = 0, 1, 2  # kinds of characters
_CHUNK = 1 << 20  # characters looked at in one go: four bytes each while they are


def joined_tokens(text: str, starts: NDArray[np.int32]) -> NDArray[np.bool_]:
    """(N,) true where a token begins inside a word, for tokens beginning at ``starts`` (N,)."""
    here = np.zeros(len(starts), np.uint8)  # kind of each token's first character
    before = np.zeros(len(starts), np.uint8)  # and of the one before that
    for begin in range(0, len(text), _CHUNK):
        first, last = np.searchsorted(starts, (begin, begin + _CHUNK))
        if first == last:
            continue
        kinds = _kinds(text[max(0, begin - 1) : begin + _CHUNK])
        at = starts[first:last] - max(0, begin - 1)
        here[first:last] = kinds[at]
        before[first:last] = np.where(at > 0, kinds[at - 1], _NONE)
    joined: NDArray[np.bool_] = (here == _SPACED) & (before == _SPACED)
    if len(starts):
        shared = starts[1:] == starts[:-1]  # several tokens make up one character
        joined[1:][shared] = here[1:][shared] != _NONE
    return joined


def _kinds(text: str) -> NDArray[np.uint8]:
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    present = np.zeros(0x110000, np.bool_)
    present[codes] = True
    table = np.zeros(0x110000, np.uint8)
    for code in np.flatnonzero(present):
        character = chr(code)
        if is_unspaced(character):
            table[code] = _UNSPACED
        elif is_word_character(character):
            table[code] = _SPACED
    kinds: NDArray[np.uint8] = table[codes]
    return kinds
