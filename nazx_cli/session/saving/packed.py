"""A tokenized document as few bytes, and back.

It comes back without the tokenizer or the file it was read from. Each token stands for the
stretch of text from its first character to that of the next. A token mostly stands for the same
stretch wherever it is, so the text and the tokens' starts follow from the ids, one stretch for each
distinct id, and the exceptions. Where there are too many of those (a script of which most
characters take several tokens) text and starts are kept as they are.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nazx_cli.documents.content import dumps, loads

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STEP = 1 << 18  # tokens at a time: a list of their stretches takes about 70 bytes each
_MOST_EXCEPTIONS = 0.25  # of the tokens; more take more room than the text


@dataclass(frozen=True)
class Packed:
    """A packed document of ``tokens`` tokens.

    ``ids`` are places in the ``vocabulary``; ``text`` and ``starts`` are None where they follow.
    """

    tokens: int
    ids: bytes
    vocabulary: bytes
    text: bytes | None = None
    starts: bytes | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        blobs = (self.ids, self.vocabulary, self.text, self.starts)
        return sum(len(blob) for blob in blobs if blob is not None)


def pack(text: str, ids: NDArray[np.int32], starts: NDArray[np.int32]) -> Packed:
    """Pack a ``text`` whose tokens ``ids`` (n,) begin at the characters ``starts`` (n,)."""
    distinct, places, first = _distinct(ids)
    bounds = np.append(starts, np.int32(len(text)))
    stretches = [text[bounds[at] : bounds[at + 1]] for at in first.tolist()]
    exceptions = _exceptions(text, bounds, places, stretches)
    words: dict[str, Any] = {"ids": np.diff(distinct, prepend=0).tolist()}
    if exceptions is not None:
        words |= {"head": text[: bounds[0]], "stretches": stretches, "exceptions": exceptions}
    packed_ids = _compressed(places.astype(_kind_of(len(distinct))).tobytes())
    vocabulary = _compressed(dumps(words))
    if exceptions is not None:
        return Packed(len(ids), packed_ids, vocabulary)
    steps = np.diff(starts.astype("<i4"), prepend=np.int32(0))
    whole = text.encode("utf-8", "surrogatepass")
    return Packed(len(ids), packed_ids, vocabulary, _compressed(whole), _compressed(steps))


def unpack(packed: Packed) -> tuple[str, NDArray[np.int32], NDArray[np.int32]]:
    """Text, ids and starts; ``ValueError``, ``KeyError`` and the like for what is damaged."""
    words = loads(zlib.decompress(packed.vocabulary))
    distinct = np.cumsum(np.asarray(words["ids"], np.int64)).astype(np.int32)
    places = _spread(packed.ids, _kind_of(len(distinct)), packed.tokens)
    if packed.tokens and int(places.max()) >= len(distinct):
        raise ValueError("a token is not in the vocabulary")
    ids: NDArray[np.int32] = distinct[places]
    if packed.text is None or packed.starts is None:
        text, starts = _follow(words, places)
        return text, ids, starts
    steps = _spread(packed.starts, "<i4", packed.tokens)
    text = zlib.decompress(packed.text).decode("utf-8", "surrogatepass")
    return text, ids, np.cumsum(steps, dtype=np.int64).astype(np.int32)


def _distinct(
    ids: NDArray[np.int32],
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
    """The distinct ids (u,), each token's place among them (n,), where each is first seen (u,)."""
    if not len(ids):
        return ids, np.zeros(0, np.int32), np.zeros(0, np.int64)
    # As large as the vocabulary, and much quicker than sorting as many as the document.
    first = np.full(int(ids.max()) + 1, -1, np.int64)
    first[ids[::-1]] = np.arange(len(ids) - 1, -1, -1)
    distinct = np.flatnonzero(first >= 0)
    place = np.zeros(len(first), np.int32)
    place[distinct] = np.arange(len(distinct))
    return distinct.astype(np.int32), place[ids], first[distinct]


def _exceptions(
    text: str, bounds: NDArray[np.int32], places: NDArray[np.int32], stretches: list[str]
) -> list[tuple[int, str]] | None:
    """Tokens that stand for another stretch than theirs, and which; None: text must be kept."""
    if len(places) and (np.diff(bounds) < 0).any():
        return None  # a tokenizer that turns pieces of the text around
    lengths = np.asarray([len(stretch) for stretch in stretches], np.int64)
    found: list[tuple[int, str]] = []
    for begin, chosen in _chosen(places, stretches):
        end = begin + len(chosen)
        # Both are needed: other borders can make up the same text.
        same = (np.diff(bounds[begin : end + 1]) == lengths[places[begin:end]]).all()
        if same and "".join(chosen) == text[bounds[begin] : bounds[end]]:
            continue
        own = bounds[begin : end + 1].tolist()
        for at, stretch in enumerate(chosen):
            if (here := text[own[at] : own[at + 1]]) != stretch:
                found.append((begin + at, here))
        if len(found) > _MOST_EXCEPTIONS * len(places):
            return None
    return found


def _follow(words: dict[str, Any], places: NDArray[Any]) -> tuple[str, NDArray[np.int32]]:
    """Text and starts of a document whose ``words`` tell them."""
    exceptions = dict(words["exceptions"])
    lengths = np.asarray([len(stretch) for stretch in words["stretches"]], np.int64)[places]
    lengths[list(exceptions)] = [len(stretch) for stretch in exceptions.values()]
    pieces = [words["head"]]
    waiting = iter(exceptions.items())
    at, other = next(waiting, (len(places), ""))
    for begin, chosen in _chosen(places, words["stretches"]):
        while at < begin + len(chosen):
            chosen[at - begin] = other
            at, other = next(waiting, (len(places), ""))
        pieces.append("".join(chosen))
    starts = len(words["head"]) + np.cumsum(lengths) - lengths
    return "".join(pieces), starts.astype(np.int32)


def _chosen(places: NDArray[Any], stretches: list[str]) -> Iterator[tuple[int, list[str]]]:
    """The stretches of the tokens, some at a time, with the first one's position."""
    for begin in range(0, len(places), _STEP):
        yield begin, [stretches[place] for place in places[begin : begin + _STEP].tolist()]


def _kind_of(distinct: int) -> str:
    return "<u2" if distinct <= 1 << 16 else "<u4"


def _compressed(data: bytes | NDArray[Any]) -> bytes:
    # Level 9 takes twice as long and gains nothing on token ids.
    return zlib.compress(data if isinstance(data, bytes) else data.tobytes(), 6)


def _spread(data: bytes, kind: str, count: int) -> NDArray[Any]:
    """``count`` numbers of a compressed array; ``ValueError`` where they are more or fewer."""
    numbers = np.frombuffer(zlib.decompress(data), kind)
    if len(numbers) != count:
        raise ValueError(f"{len(numbers)} numbers where {count} belong")
    return numbers
