"""A tokenized text, and making one: whole, in chunks, or from that of an earlier version."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import numpy as np

from nazx_cli.names import OnProgress

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Encoding

    from nazx_cli.tokenizer.backend import Backend
    from nazx_cli.tokenizer.cutting import Cutting


@dataclass(frozen=True)
class Tokens:
    """A tokenized text: ``ids`` (N,) int32 and ``starts`` (N,) int32, each token's first
    character in the text."""

    ids: NDArray[np.int32]
    starts: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.ids)


def joined(parts: Sequence[Tokens]) -> Tokens:
    """One after another; ``starts`` are taken as they are."""
    empty = np.zeros(0, np.int32)
    ids = np.concatenate([empty, *(part.ids for part in parts)])
    starts = np.concatenate([empty, *(part.starts for part in parts)])
    return Tokens(ids, starts)


_BLOCK = 1 << 16  # characters compared at a time


class EncodePart(Protocol):
    """Encodes a text, or what goes on after another."""

    def __call__(
        self, text: str, on_progress: OnProgress | None = None, *, continued: bool = False
    ) -> Tokens: ...


def encode_edited(
    encode: EncodePart,
    cutting: Cutting,
    old: str,
    tokens: Tokens,
    new: str,
    on_progress: OnProgress | None = None,
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

    middle = encode(new[begin:end], report, continued=begin > 0)
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
    return _reach(lambda at, n: one[at : at + n] == other[at : at + n], limit)


def shared_suffix(one: str, other: str, limit: int) -> int:
    """Characters that both end with, ``limit`` at most."""
    a, b = len(one), len(other)
    return _reach(lambda at, n: one[a - at - n : a - at] == other[b - at - n : b - at], limit)


def _reach(equal: Callable[[int, int], bool], limit: int) -> int:
    """The first place up to ``limit`` where ``equal(place, 1)`` fails; n are compared at a time."""
    at = 0
    while at < limit and equal(at, size := min(_BLOCK, limit - at)):
        at += size
    low, high = 0, min(_BLOCK, limit - at)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if equal(at, middle) else (low, middle - 1)
    return at + low


PIECE = 1 << 16  # characters of text looked at in one go
_LONGEST = 1 << 15  # characters beyond them without a cut, in no text that people read: it is made
_WHOLE = 1 << 20  # characters that a tokenizer is given at once of which no safe cuts are known
_TOGETHER = 1 << 11  # characters of chunks that the backend is given as one text
_KEPT = 1 << 19  # tokens of distinct chunks beyond which they are forgotten: some 50 MB
_BETWEEN = " a"


def encode_whole(backend: Backend, text: str, on_progress: OnProgress | None = None) -> Tokens:
    """The backend's own call, on all of ``text``; a long one is cut behind the end of a line.

    The backend takes some hundred bytes a character while it works. ``on_progress`` is told
    characters done and in all.
    """
    found = _Growing()
    begin = 0
    while begin < len(text):
        end = begin + _WHOLE
        if end < len(text):
            end = text.rfind("\n", begin, end) + 1 or end
        found.add(_tokens(backend.encode(text[begin:end])), begin)
        begin = min(end, len(text))
        if on_progress:
            on_progress(begin, len(text))
    return found.tokens()


def encode_in_chunks(chunks: Chunks, text: str, on_progress: OnProgress | None = None) -> Tokens:
    """What the backend gives for all of ``text``, but where that goes on without a cut for longer
    than any that was written; ``on_progress`` is told characters done and in all."""
    found = _Growing()
    begin = 0
    while begin < len(text):
        end = chunks.cutting.first(text, begin + PIECE, _LONGEST)
        found.add(chunks.encode(text[begin:end]), begin)
        if on_progress:
            on_progress(end, len(text))
        begin = end
    return found.tokens()


class _Growing:
    """Tokens one after another, in arrays that grow in place: parts that are put together at the
    end take twice the memory."""

    def __init__(self) -> None:
        self._length = 0
        self._ids = np.zeros(0, np.int32)
        self._starts = np.zeros(0, np.int32)

    def add(self, tokens: Tokens, begin: int) -> None:
        """Put ``tokens`` of the text's part from ``begin`` on behind the others."""
        end = self._length + len(tokens)
        if end > len(self._ids):
            self._resize(end + end // 8)
        self._ids[self._length : end] = tokens.ids
        np.add(tokens.starts, np.int32(begin), out=self._starts[self._length : end])
        self._length = end

    def tokens(self) -> Tokens:
        """All of them."""
        self._resize(self._length)
        return Tokens(self._ids, self._starts)

    def _resize(self, length: int) -> None:
        for array in (self._ids, self._starts):
            array.resize(length, refcheck=False)  # nothing else refers to it


class Numbered(dict[str, int]):
    """Numbers what it is asked for, as it comes. (A ``defaultdict`` that counts itself refers to
    itself, and stays in memory long after its use.)"""

    def __missing__(self, chunk: str) -> int:
        number = self[chunk] = len(self)
        return number


class Chunks:
    """The chunks met so far, numbered as they came, and the tokens of each; forgotten where they
    get too many.

    Chunk i has ``counts[i]`` tokens from ``firsts[i]`` on in ``tokens``, whose starts count from
    the chunk's first character.
    """

    def __init__(self, backend: Backend, cutting: Cutting) -> None:
        self._backend = backend
        self.cutting = cutting
        self._forget()

    def _forget(self) -> None:
        self._numbers = Numbered()
        self._firsts = np.zeros(0, np.int64)
        self._counts = np.zeros(0, np.int64)
        self._tokens = joined(())

    def encode(self, piece: str) -> Tokens:
        """Tokens of a piece between two cuts."""
        if len(self._tokens) > _KEPT:
            self._forget()
        chunks = self.cutting.chunks.findall(piece)
        known = len(self._numbers)
        numbers = np.fromiter(map(self._numbers.__getitem__, chunks), np.int64, len(chunks))
        self._learn(list(islice(self._numbers, known, None)))
        lengths = np.fromiter(map(len, chunks), np.int64, len(chunks))
        counts = self._counts[numbers]
        # Token k of the piece is token k - (tokens before its chunk) of that chunk.
        shift = self._firsts[numbers] - _before(counts)
        at = np.repeat(shift, counts) + np.arange(counts.sum())
        begins = np.repeat(_before(lengths).astype(np.int32), counts)
        return Tokens(self._tokens.ids[at], self._tokens.starts[at] + begins)

    def _learn(self, new: list[str]) -> None:
        """Have ``new`` chunks encoded, several as one text where that is safe."""
        texts, owners = self._texts(new)
        encodings = self._backend.encode_batch(texts)
        lengths = np.fromiter(map(len, new), np.int64, len(new))
        firsts = np.zeros(len(new), np.int64)
        counts = np.zeros(len(new), np.int64)
        parts, at = [self._tokens], len(self._tokens)
        for encoding, owned in zip(encodings, owners, strict=True):
            tokens = _tokens(encoding)
            if isinstance(owned, int):
                firsts[owned], counts[owned] = at, len(tokens)
            else:
                ends = np.cumsum(lengths[owned] + len(_BETWEEN))
                begins = (ends - lengths[owned]).astype(np.int32)
                left = np.searchsorted(tokens.starts, begins)
                firsts[owned] = at + left
                counts[owned] = np.searchsorted(tokens.starts, ends) - left
                chunk = np.searchsorted(begins, tokens.starts, side="right") - 1
                tokens = Tokens(tokens.ids, tokens.starts - begins[chunk])
            parts.append(tokens)
            at += len(tokens)
        self._firsts = np.concatenate([self._firsts, firsts])
        self._counts = np.concatenate([self._counts, counts])
        self._tokens = joined(parts)

    def _texts(self, new: list[str]) -> tuple[list[str], list[int | list[int]]]:
        """Texts for the backend, and which of ``new`` each is: one, or several that have
        ``_BETWEEN`` in front of each."""
        texts: list[str] = []
        owners: list[int | list[int]] = []
        together: list[int] = []
        size = 0
        behind_a = self.cutting.behind_a
        for number, chunk in enumerate(new):
            if behind_a.match(chunk) and not chunk[-1].isspace():
                together.append(number)
                size += len(chunk)
            else:
                texts.append(chunk)
                owners.append(number)
            if together and (size >= _TOGETHER or number == len(new) - 1):
                texts.append("".join(_BETWEEN + new[i] for i in together))
                owners.append(together)
                together, size = [], 0
        return texts, owners


def _before(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum of the counts before each."""
    return np.cumsum(counts) - counts


def _tokens(encoding: Encoding) -> Tokens:
    offsets = np.asarray(encoding.offsets, dtype=np.int32).reshape(-1, 2)
    # A copy: a view would keep the ends in memory.
    return Tokens(np.asarray(encoding.ids, dtype=np.int32), offsets[:, 0].copy())
