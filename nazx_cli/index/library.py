"""Documents of segments, and some in memory, as one library."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from nazx_cli.index.documents import StoredDocument
from nazx_cli.index.segment import DamagedIndexError, Segment, spelled_order
from nazx_cli.reading.library import Library
from nazx_cli.reading.matcher import Positions, Tally, Words
from nazx_cli.reading.passages import PASSAGE_TOKENS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nazx_cli.reading.tokenized import TokenizedDocument
    from nazx_cli.tokenizer import Tokenizer

_KEPT = 16_000_000  # passages of words looked up that are kept at hand: at 5 bytes
_NOWHERE = Tally(np.zeros(0, np.int32), np.zeros(0, np.uint8))


class IndexedLibrary(Library):
    """A library of which only where passages begin is held: 60 bytes or so for each of them."""

    def __init__(
        self,
        documents: Sequence[TokenizedDocument],
        tokenizer: Tokenizer,
        passage_tokens: int = PASSAGE_TOKENS,
    ) -> None:
        if passage_tokens != PASSAGE_TOKENS:
            raise ValueError(f"the index has passages of {PASSAGE_TOKENS} tokens")
        super().__init__(documents, tokenizer, passage_tokens)

    @cached_property
    def cuts(self) -> Positions:
        """As in memory, int64."""
        found = [np.zeros(1, np.int64)]
        for document, start in zip(self.documents, self.bounds.tolist(), strict=False):
            own = document.cuts()
            if isinstance(document, StoredDocument) and own[[0, -1]].tolist() != [0, len(document)]:
                raise DamagedIndexError(document.segment.path)
            found.append(own[1:] + np.int64(start))
        return np.concatenate(found)

    @cached_property
    def matcher(self) -> Words:
        """Finds words on the posting lists of all parts."""
        return _IndexedWords(self.cuts, list(self._parts()))

    @cached_property
    def holding(self) -> NDArray[np.int64]:
        """As in memory."""
        found = np.zeros(self.tokenizer.vocab_size, np.int64)
        for part in self._parts():
            part.add_holding(found)
        return found

    def token_ids(self, start: int, stop: int) -> NDArray[np.int32]:
        """As in memory."""
        d = self.document_of(start)
        first = int(self.bounds[d])
        return self.documents[d].ids[start - first : stop - first]

    def _parts(self) -> Iterator[_Part]:
        """The documents by where their posting lists are."""
        firsts = np.searchsorted(self.cuts, self.bounds).tolist()
        loose: list[int] = []
        lying: dict[tuple[Segment, int], dict[int, int]] = {}  # and which time a document comes
        for d, document in enumerate(self.documents):
            if not isinstance(document, StoredDocument):
                loose.append(d)
                continue
            time = 0
            while document.number in lying.setdefault((document.segment, time), {}):
                time += 1
            lying[document.segment, time][document.number] = firsts[d]
        for (segment, _), placed in lying.items():
            yield _SegmentPart(segment, placed)
        if loose:
            yield _LoosePart(
                Library([self.documents[d] for d in loose], self.tokenizer),
                [firsts[d] for d in loose],
            )


class _Part(Protocol):
    """Documents whose posting lists are together. Passages are the library's."""

    def tally(self, target: str) -> Tally:
        """Where words with the stem ``target`` stand; the passages in no order."""

    def places(self, target: str, cuts: Positions) -> Positions:
        """Positions of the tokens in which they begin, in no order."""

    def begins(self, start: str, *, spelled: bool) -> bool:
        """See ``Words``."""

    def can_tell(self, word: str) -> bool:
        """See ``Words``."""

    def scripts(self) -> frozenset[str]:
        """See ``Words``."""

    def initials(self) -> tuple[int, int]:
        """See ``Words``."""

    def add_holding(self, found: NDArray[np.int64]) -> None:
        """Add to each token (vocab_size,) how many passages have it."""


class _IndexedWords:
    """``Words`` of all parts together."""

    def __init__(self, cuts: Positions, parts: list[_Part]) -> None:
        self._cuts, self._parts = cuts, parts
        self._found: OrderedDict[str, Tally] = OrderedDict()
        self._held = 0

    def find(self, target: str) -> Positions:
        """See ``Words``."""
        return _joined([part.places(target, self._cuts) for part in self._parts])[0]

    def tally(self, target: str) -> Tally:
        """See ``Words``."""
        if (found := self._found.get(target)) is None:
            tallies = [tally for part in self._parts if len((tally := part.tally(target)).counts)]
            passages = [tally.passages for tally in tallies]
            found = _NOWHERE
            if tallies:
                found = Tally(*_joined(passages, [tally.counts for tally in tallies]))
            self._found[target] = found
            self._held += len(found.counts)
            while self._held > _KEPT and len(self._found) > 1:
                self._held -= len(self._found.popitem(last=False)[1].counts)
        self._found.move_to_end(target)
        return found

    def has(self, target: str) -> bool:
        """See ``Words``."""
        return len(self.tally(target).counts) > 0

    def begins(self, start: str, *, spelled: bool = False) -> bool:
        """See ``Words``."""
        return any(part.begins(start, spelled=spelled) for part in self._parts)

    def can_tell(self, word: str) -> bool:
        """See ``Words``."""
        return all(part.can_tell(word) for part in self._parts)

    @cached_property
    def scripts(self) -> frozenset[str]:
        """See ``Words``."""
        return frozenset().union(*(part.scripts() for part in self._parts))

    @cached_property
    def initials(self) -> tuple[int, int]:
        """See ``Words``."""
        capitals, letters = zip(*(part.initials() for part in self._parts), strict=True)
        return sum(capitals), sum(letters)


def _joined(
    keys: list[NDArray[Any]], others: list[NDArray[Any]] | None = None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """``keys`` as one array, ascending, and ``others`` in the same order."""
    key = keys[0] if len(keys) == 1 else np.concatenate([np.zeros(0, np.int32), *keys])
    other = key if others is None else np.concatenate(others)
    if np.all(key[1:] > key[:-1]):
        return key, other
    order = np.argsort(key, kind="stable")
    return key[order], other[order]


class _SegmentPart:
    """Documents of a segment: ``placed`` has their first passages in the library."""

    def __init__(self, segment: Segment, placed: dict[int, int]) -> None:
        self._segment = segment
        self._documents = sorted(placed)
        # (passages of the segment,) int32, which of the library's each is; -1: none
        self._passage = np.full(segment.num_passages, -1, np.int32)
        for d in self._documents:
            first, last = segment.document(d).passage, segment.ends(d, "passage")
            self._passage[first:last] = np.arange(placed[d], placed[d] + last - first)
        self._whole = len(placed) == len(segment)

    def tally(self, target: str) -> Tally:
        """See ``_Part``."""
        begin, end, _, _ = self._segment.entries(target)
        if begin == end:
            return _NOWHERE
        passages = self._passage[self._segment.passages(begin, end)]
        counts = self._segment.entry_counts[begin:end]
        if self._whole:
            return Tally(passages, counts)
        kept = passages >= 0
        return Tally(passages[kept], counts[kept])

    def places(self, target: str, cuts: Positions) -> Positions:
        """See ``_Part``."""
        begin, end, first, last = self._segment.entries(target)
        passages = self._passage[self._segment.passages(begin, end)]
        passages = np.repeat(passages, self._segment.entry_counts[begin:end])
        kept = passages >= 0
        found: Positions = cuts[passages[kept]] + self._segment.places[first:last][kept]
        return found

    def begins(self, start: str, *, spelled: bool) -> bool:
        """See ``_Part``."""
        folded, segment = start.casefold(), self._segment
        low, high = 0, segment.num_spelled
        while low < high:
            middle = (low + high) // 2
            if spelled_order(segment.spelled(middle)) < (folded, ""):
                low = middle + 1
            else:
                high = middle
        for number in range(low, segment.num_spelled):
            word = segment.spelled(number)
            if not word.casefold().startswith(folded):
                return False
            if (not spelled or word.startswith(start)) and self._has_some(segment.owners(number)):
                return True
        return False

    def can_tell(self, word: str) -> bool:
        """See ``_Part``."""
        return word.isascii() or not any(map(self._is_split, self._documents))

    def _is_split(self, d: int) -> bool:
        return bool(self._segment.record(d)["split"])

    def scripts(self) -> frozenset[str]:
        """See ``_Part``."""
        found = (self._segment.record(d)["scripts"].split(" ") for d in self._documents)
        return frozenset().union(*found) - {""}

    def initials(self) -> tuple[int, int]:
        """See ``_Part``."""
        found = [self._segment.document(d) for d in self._documents]
        return sum(each.capitals for each in found), sum(each.letters for each in found)

    def add_holding(self, found: NDArray[np.int64]) -> None:
        """See ``_Part``."""
        for d in self._documents:
            distinct, passages = self._segment.distinct(d)
            found[distinct] += passages

    def _has_some(self, owners: NDArray[np.int32]) -> bool:
        return self._whole or not set(self._documents).isdisjoint(owners.tolist())


class _LoosePart:
    """Documents in memory: ``firsts`` are their first passages in the whole."""

    def __init__(self, library: Library, firsts: list[int]) -> None:
        self._library = library
        own = np.searchsorted(library.cuts, library.bounds).tolist()
        spans = zip(pairwise(own), firsts, strict=True)
        made = [np.arange(first, first + b - a, dtype=np.int32) for (a, b), first in spans]
        self._passage = np.concatenate([np.zeros(0, np.int32), *made])

    @property
    def _words(self) -> Words:
        return self._library.matcher

    def tally(self, target: str) -> Tally:
        """See ``_Part``."""
        found = self._words.tally(target)
        return Tally(self._passage[found.passages], found.counts)

    def places(self, target: str, cuts: Positions) -> Positions:
        """See ``_Part``."""
        at = self._words.find(target)
        own = np.searchsorted(self._library.cuts, at, side="right") - 1
        found: Positions = cuts[self._passage[own]] + (at - self._library.cuts[own])
        return found

    def begins(self, start: str, *, spelled: bool) -> bool:
        """See ``_Part``."""
        return self._words.begins(start, spelled=spelled)

    def can_tell(self, word: str) -> bool:
        """See ``_Part``."""
        return self._words.can_tell(word)

    def scripts(self) -> frozenset[str]:
        """See ``_Part``."""
        return self._words.scripts

    def initials(self) -> tuple[int, int]:
        """See ``_Part``."""
        return self._words.initials

    def add_holding(self, found: NDArray[np.int64]) -> None:
        """See ``_Part``."""
        found += self._library.holding
