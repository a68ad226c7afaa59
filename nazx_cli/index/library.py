"""Documents of segments, and some in memory, as one library."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from nazx_cli.index.documents import StoredDocument
from nazx_cli.index.parts import LoosePart, Part, SegmentPart
from nazx_cli.index.segment import DamagedIndexError, Segment
from nazx_cli.reading.library import Library
from nazx_cli.reading.matcher import Words
from nazx_cli.reading.passages import PASSAGE_TOKENS
from nazx_cli.reading.tallies import Blocks, Counts, Positions, Tally

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nazx_cli.reading.tokenized import TokenizedDocument
    from nazx_cli.tokenizer import Tokenizer

_KEPT = 16_000_000  # passages of words looked up that are kept at hand: at 5 bytes


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
        return _IndexedWords(self.cuts, _Row(self.blocks, list(self._parts())))

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

    def _parts(self) -> Iterator[Part]:
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
            yield SegmentPart(segment, placed)
        if loose:
            yield LoosePart(
                Library([self.documents[d] for d in loose], self.tokenizer),
                [firsts[d] for d in loose],
            )


class _Row:
    """All passages of ``parts``, one part after the other: each begins at one of ``firsts``."""

    def __init__(self, blocks: Blocks, parts: Sequence[Part]) -> None:
        """The library has ``blocks``."""
        self.parts = parts
        sizes = [len(part.numbers) for part in parts]
        self.firsts: list[int] = np.cumsum([0, *sizes[:-1]]).tolist()
        numbers = np.concatenate([part.numbers[part.blocks.begins] for part in parts])
        ours = np.flatnonzero(numbers >= 0)
        self._order = np.empty(len(blocks), np.int64)  # where each block of the library is
        self._order[np.searchsorted(blocks.begins, numbers[ours])] = ours
        # Most often files are listed as they were when they were taken in, all of them.
        self._as_listed = np.array_equal(self._order, np.arange(len(numbers)))
        self.blocks = Blocks.joined([part.blocks for part in parts], self.firsts, self._order)

    def in_order(self, limits: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B,) those of all blocks of the parts, for each block of the library."""
        return limits if self._as_listed else limits[self._order]


class _Joined:
    """The tally of all parts together. What is asked for is read."""

    def __init__(self, row: _Row, target: str) -> None:
        self._row, self._target = row, target
        self._sizes = [part.size(target) for part in row.parts]
        self.holding = sum(holding for holding, _ in self._sizes)
        self.total = sum(total for _, total in self._sizes)

    @property
    def passages(self) -> NDArray[np.int32]:
        """See ``Tally``."""
        return self._entries[0]

    @property
    def counts(self) -> Counts:
        """See ``Tally``."""
        return self._entries[1]

    def around(self, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        """See ``Tally``."""
        return self._row.blocks.around(*self._entries, chosen)

    def limits(self) -> NDArray[np.float32]:
        """See ``Tally``."""
        found = [part.limits(self._target) for part in self._row.parts]
        return self._row.in_order(np.concatenate(found))

    @cached_property
    def _entries(self) -> tuple[NDArray[np.int32], Counts]:
        passages = np.empty(self.holding, np.int32)
        counts = np.empty(self.holding, np.uint8)
        end = 0
        row = self._row
        for part, first, (holding, _) in zip(row.parts, row.firsts, self._sizes, strict=True):
            if holding:
                begin, end = end, end + holding
                own, counts[begin:end] = part.entries(self._target)
                np.add(own, first, out=passages[begin:end])
        return passages, counts


class _IndexedWords:
    """``Words`` of all parts together."""

    def __init__(self, cuts: Positions, row: _Row) -> None:
        self._cuts, self._row, self._parts = cuts, row, row.parts
        self._found: OrderedDict[str, _Joined] = OrderedDict()
        self._held = 0

    def find(self, target: str) -> Positions:
        """See ``Words``."""
        found = [part.places(target, self._cuts) for part in self._parts]
        return np.sort(np.concatenate([np.zeros(0, np.int64), *found]), kind="stable")

    def tally(self, target: str) -> Tally:
        """See ``Words``."""
        if (found := self._found.get(target)) is None:
            found = self._found[target] = _Joined(self._row, target)
            self._held += found.holding
            while self._held > _KEPT and len(self._found) > 1:
                self._held -= self._found.popitem(last=False)[1].holding
        self._found.move_to_end(target)
        return found

    def has(self, target: str) -> bool:
        """See ``Words``."""
        return self.tally(target).holding > 0

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
