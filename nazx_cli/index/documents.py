"""A document that lies in a segment, as one of memory is used: what is asked for is read."""

from __future__ import annotations

import hashlib
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from nazx_cli.documents.document import Document, Origin, Place
from nazx_cli.reading.passages import PASSAGE_TOKENS
from nazx_cli.reading.tokenized import TokenizedDocument

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nazx_cli.index.library import IndexedLibrary
    from nazx_cli.index.segment import Segment
    from nazx_cli.tokenizer import Tokenizer, Tokens

_RECENT = 4  # documents of which text and tokens are kept at hand


def key_by(sha256: str, name: str) -> str:
    """What names a document by the SHA-256 of its file and what it is called."""
    return hashlib.sha256(f"{sha256} {name}".encode("utf-8", "surrogatepass")).hexdigest()


class StoredText(Document):
    """A document whose text is read from its segment each time."""

    def __init__(self, name: str, segment: Segment, number: int, origin: Origin) -> None:
        values = {"name": name, "origin": origin, "segment": segment, "number": number}
        self.__dict__.update(values)

    segment: Segment
    number: int

    @property
    def text(self) -> str:
        """All of it."""
        return self.segment.text(self.number)

    @property
    def format(self) -> str:
        """The reader that made it."""
        return str(self.segment.record(self.number)["format"])

    @property
    def places(self) -> tuple[Place, ...]:
        """Pages or chapters."""
        found = self.segment.record(self.number)["places"]
        return tuple(Place(start, label) for start, label in found)


class StoredDocument(TokenizedDocument):
    """Document ``number`` of ``segment``, called ``name``; ``tokenizer`` is the segment's own;
    without it there are no ``ids``."""

    document: StoredText

    def __init__(
        self, name: str, segment: Segment, number: int, origin: Origin, tokenizer: Tokenizer | None
    ) -> None:
        numbers = segment.document(number)
        self.__dict__.update(
            document=StoredText(name, segment, number, origin),
            segment=segment,
            number=number,
            tokenizer=tokenizer,
            num_tokens=numbers.tokens,
            _characters=numbers.characters,
        )

    segment: Segment
    number: int
    tokenizer: Tokenizer | None
    num_tokens: int
    _characters: int

    def __len__(self) -> int:
        return self.num_tokens

    @property
    def ids(self) -> NDArray[np.int32]:
        """As in memory; tokenized again where they are asked for: recall never does."""
        return _tokens(self).ids

    @property
    def starts(self) -> NDArray[np.int32]:
        """As ``ids``."""
        return _tokens(self).starts

    @property
    def num_characters(self) -> int:
        """Characters of the text."""
        return self._characters

    @cached_property
    def key(self) -> str:
        """Of name and content as in memory, though another number: nothing of it is read."""
        return key_by(self.segment.hash_of(self.number), self.name)

    @property
    def library(self) -> type[IndexedLibrary]:
        """What holds documents of segments."""
        from nazx_cli.index.library import IndexedLibrary

        return IndexedLibrary

    def cuts(self, passage_tokens: int = PASSAGE_TOKENS) -> NDArray[np.int32]:
        """As in memory."""
        if passage_tokens != PASSAGE_TOKENS:
            return super().cuts(passage_tokens)
        found: NDArray[np.int32] = self.segment.cuts(self.number, "tokens")
        return found

    def characters(self, start: int, stop: int) -> tuple[int, int]:
        """As in memory; next to nothing is read where both are the ends of passages."""
        cuts = self.cuts()
        at = np.searchsorted(cuts, (start, stop))
        if cuts[at].tolist() != [start, stop]:
            return super().characters(start, stop)
        begin, end = self.segment.cuts(self.number, "characters")[at].tolist()
        return begin, end

    def between(self, begin: int, end: int) -> str:
        """As in memory; of the text only passages are read that have a part in it."""
        first, last, cuts = self._around(begin, end)
        bounds = self.segment.cuts(self.number, "bytes")
        stop = int(bounds[last]) if last < len(bounds) else None
        start = int(cuts[first])
        return self.segment.text(self.number, int(bounds[first]), stop)[begin - start : end - start]

    def line_of(self, character: int) -> int:
        """As in memory."""
        first, _, cuts = self._around(character, character)
        before = self.between(int(cuts[first]), character).count("\n")
        return int(self.segment.cuts(self.number, "lines")[first]) + before + 1

    def _around(self, begin: int, end: int) -> tuple[int, int, NDArray[np.int32]]:
        """The cuts, in characters, and those of them around two characters."""
        cuts: NDArray[np.int32] = self.segment.cuts(self.number, "characters")
        first = max(0, int(np.searchsorted(cuts, begin, side="right")) - 1)
        return first, int(np.searchsorted(cuts, end)), cuts


@lru_cache(maxsize=_RECENT)
def _tokens(document: StoredDocument) -> Tokens:
    assert document.tokenizer is not None, "its text alone was asked for"
    return document.tokenizer.encode_document(document.text)
