"""The parts of an indexed library: documents whose posting lists are together."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import numpy as np

from nazx_cli.index.segment import Segment, spelled_order
from nazx_cli.reading.library import Library
from nazx_cli.reading.tallies import Blocks, Counts, Positions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nazx_cli.reading.matcher import Words


class Part(Protocol):
    """Documents whose posting lists are together. It has passages and blocks of its own, which
    may be more than the library's."""

    @property
    def blocks(self) -> Blocks:
        """All of its own."""

    @property
    def numbers(self) -> NDArray[np.int32]:
        """(p,) which passage of the library each of its own is; -1: none."""

    def size(self, target: str) -> tuple[int, int]:
        """In how many passages of the library words with the stem ``target`` stand, and how often
        in all."""

    def entries(self, target: str) -> tuple[NDArray[np.int32], Counts]:
        """In which of its own that are the library's, ascending, and how often in each."""

    def limits(self, target: str) -> NDArray[np.float32]:
        """As of ``Blocks``, of all blocks of its own."""

    def places(self, target: str, cuts: Positions) -> Positions:
        """Positions in the library of the tokens in which they begin, in no order."""

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


class SegmentPart:
    """Documents of a segment: ``placed`` has their first passages in the library."""

    def __init__(self, segment: Segment, placed: dict[int, int]) -> None:
        self._segment = segment
        self._documents = sorted(placed)
        self.blocks = segment.blocks
        self.numbers = np.full(segment.num_passages, -1, np.int32)
        for d in self._documents:
            first, last = segment.document(d).passage, segment.ends(d, "passage")
            self.numbers[first:last] = np.arange(placed[d], placed[d] + last - first)
        self._whole = len(placed) == len(segment)

    def size(self, target: str) -> tuple[int, int]:
        """See ``Part``."""
        if not self._whole:
            passages, counts = self.entries(target)
            return len(passages), int(counts.sum(dtype=np.int64))
        found = self._segment.entries(target)
        return found.end - found.begin, found.last - found.first

    def entries(self, target: str) -> tuple[NDArray[np.int32], Counts]:
        """See ``Part``."""
        found = self._segment.entries(target)
        passages, counts = self._segment.passages(found), self._segment.counts(found)
        if self._whole:
            return passages, counts
        kept = self.numbers[passages] >= 0
        return passages[kept], counts[kept]

    def limits(self, target: str) -> NDArray[np.float32]:
        """See ``Part``."""
        return self._segment.limits(self._segment.entries(target))

    def places(self, target: str, cuts: Positions) -> Positions:
        """See ``Part``."""
        entries = self._segment.entries(target)
        passages = self.numbers[self._segment.passages(entries)]
        passages = np.repeat(passages, self._segment.counts(entries))
        kept = passages >= 0
        found: Positions = cuts[passages[kept]] + self._segment.places(entries)[kept]
        return found

    def begins(self, start: str, *, spelled: bool) -> bool:
        """See ``Part``."""
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
        """See ``Part``."""
        return word.isascii() or not any(map(self._is_split, self._documents))

    def _is_split(self, d: int) -> bool:
        return bool(self._segment.record(d)["split"])

    def scripts(self) -> frozenset[str]:
        """See ``Part``."""
        found = (self._segment.record(d)["scripts"].split(" ") for d in self._documents)
        return frozenset().union(*found) - {""}

    def initials(self) -> tuple[int, int]:
        """See ``Part``."""
        found = [self._segment.document(d) for d in self._documents]
        return sum(each.capitals for each in found), sum(each.letters for each in found)

    def add_holding(self, found: NDArray[np.int64]) -> None:
        """See ``Part``."""
        for d in self._documents:
            distinct, passages = self._segment.distinct(d)
            found[distinct] += passages

    def _has_some(self, owners: NDArray[np.int32]) -> bool:
        return self._whole or not set(self._documents).isdisjoint(owners.tolist())


class LoosePart:
    """Documents in memory: ``firsts`` are their first passages in the whole."""

    def __init__(self, library: Library, firsts: list[int]) -> None:
        self._library = library
        own = np.searchsorted(library.cuts, library.bounds).tolist()
        spans = zip(pairwise(own), firsts, strict=True)
        made = [np.arange(first, first + b - a, dtype=np.int32) for (a, b), first in spans]
        self.numbers = np.concatenate([np.zeros(0, np.int32), *made])

    @property
    def _words(self) -> Words:
        return self._library.matcher

    @property
    def blocks(self) -> Blocks:
        """See ``Part``."""
        return self._library.blocks

    def size(self, target: str) -> tuple[int, int]:
        """See ``Part``."""
        found = self._words.tally(target)
        return found.holding, found.total

    def entries(self, target: str) -> tuple[NDArray[np.int32], Counts]:
        """See ``Part``."""
        found = self._words.tally(target)
        return found.passages, found.counts

    def limits(self, target: str) -> NDArray[np.float32]:
        """See ``Part``."""
        return self._words.tally(target).limits()

    def places(self, target: str, cuts: Positions) -> Positions:
        """See ``Part``."""
        at = self._words.find(target)
        own = np.searchsorted(self._library.cuts, at, side="right") - 1
        found: Positions = cuts[self.numbers[own]] + (at - self._library.cuts[own])
        return found

    def begins(self, start: str, *, spelled: bool) -> bool:
        """See ``Part``."""
        return self._words.begins(start, spelled=spelled)

    def can_tell(self, word: str) -> bool:
        """See ``Part``."""
        return self._words.can_tell(word)

    def scripts(self) -> frozenset[str]:
        """See ``Part``."""
        return self._words.scripts

    def initials(self) -> tuple[int, int]:
        """See ``Part``."""
        return self._words.initials

    def add_holding(self, found: NDArray[np.int64]) -> None:
        """See ``Part``."""
        found += self._library.holding
