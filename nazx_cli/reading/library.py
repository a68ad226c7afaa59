"""The documents of a session as one sequence of tokens, with the way back to their text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar, overload

import numpy as np

from nazx_cli.documents.document import Document
from nazx_cli.reading.boundaries import joined_tokens
from nazx_cli.reading.matching import Matcher
from nazx_cli.reading.passages import PASSAGE_TOKENS, Passage, cut
from nazx_cli.tokenizer import Tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nazx_cli.context.posting_lists import PostingLists

_Scalar = TypeVar("_Scalar", bound=np.generic)


class Library:
    """Documents, tokenized and cut into passages.

    ids     (N,) int32, all documents' tokens one after another
    bounds  (D + 1,) int64, document d is ids[bounds[d]:bounds[d + 1]]
    starts  (N,) int32, each token's first character in its own document
    joined  (N,) bool, true for a token that carries on the word before it
    """

    def __init__(
        self,
        documents: Sequence[Document],
        tokenizer: Tokenizer,
        starts: Sequence[NDArray[np.int32]],
        ids: NDArray[np.int32],
        passage_tokens: int = PASSAGE_TOKENS,
    ) -> None:
        self.documents = tuple(documents)
        self.tokenizer = tokenizer
        self.passage_tokens = passage_tokens
        self.ids = ids
        self.bounds: NDArray[np.int64] = np.cumsum([0, *map(len, starts)], dtype=np.int64)
        self.starts = _end_to_end(starts, np.int32)
        self._line_starts: dict[int, NDArray[np.int64]] = {}

    @classmethod
    def build(
        cls,
        documents: Sequence[Document],
        tokenizer: Tokenizer,
        on_progress: Callable[[int, int], None] | None = None,
        passage_tokens: int = PASSAGE_TOKENS,
    ) -> Library:
        """Tokenize ``documents``; ``on_progress`` is told characters done and in all."""
        total = sum(len(d.text) for d in documents)
        before = 0
        ids: list[NDArray[np.int32]] = []
        starts: list[NDArray[np.int32]] = []
        for document in documents:

            def report(done: int, _: int, before: int = before) -> None:
                if on_progress:
                    on_progress(before + done, total)

            tokens = tokenizer.encode_document(document.text, report)
            ids.append(tokens.ids)
            starts.append(tokens.starts)
            before += len(document.text)
        return cls(documents, tokenizer, starts, _end_to_end(ids, np.int32), passage_tokens)

    @property
    def num_tokens(self) -> int:
        """Tokens in all documents together."""
        return len(self.ids)

    @property
    def document_tokens(self) -> tuple[int, ...]:
        """Tokens of each document."""
        return tuple(int(n) for n in np.diff(self.bounds))

    @cached_property
    def joined(self) -> NDArray[np.bool_]:
        """(N,) bool, true for a token that carries on the word before it."""
        parts = [
            joined_tokens(document.text, self._starts_of(d))
            for d, document in enumerate(self.documents)
        ]
        return _end_to_end(parts, np.bool_)

    @cached_property
    def posting_lists(self) -> PostingLists:
        """Where each distinct token stands in ``ids``."""
        import torch

        from nazx_cli.context.posting_lists import PostingLists

        return PostingLists.build(torch.from_numpy(self.ids))

    @cached_property
    def matcher(self) -> Matcher:
        """Finds words on the posting lists."""
        return Matcher(self)

    @cached_property
    def cuts(self) -> NDArray[np.int64]:
        """(P + 1,) token positions: passage i is ids[cuts[i]:cuts[i + 1]]."""
        parts = [np.zeros(1, np.int64)]
        for d, document in enumerate(self.documents):
            joined = self.joined[self.bounds[d] : self.bounds[d + 1]]
            own = cut(document.text, self._starts_of(d), joined, self.passage_tokens)
            parts.append(own[1:] + self.bounds[d])
        return np.concatenate(parts)

    @property
    def passages(self) -> Passages:
        """All passages, in order; each is made when it is asked for."""
        return Passages(self)

    def document_of(self, position: int) -> int:
        """Index of the document that holds the token at ``position``."""
        return int(np.searchsorted(self.bounds, position, side="right")) - 1

    def span(self, start: int, stop: int) -> Passage:
        """The passage of tokens ``start`` to ``stop``, which must lie in one document."""
        d = self.document_of(start)
        if not self.bounds[d] <= start < stop <= self.bounds[d + 1]:
            raise ValueError(f"tokens {start} to {stop} are no stretch of one document")
        document = self.documents[d]
        begin = int(self.starts[start]) if start > self.bounds[d] else 0
        end = int(self.starts[stop]) if stop < self.bounds[d + 1] else len(document.text)
        text = document.text[begin:end]
        blank = len(text) - len(text.lstrip())
        first = self._line_of(d, begin + (blank if blank < len(text) else 0))
        last = self._line_of(d, max(begin, begin + len(text.rstrip()) - 1))
        return Passage(document.name, first, max(first, last), start, stop, text)

    def merged(self, passages: Iterable[Passage]) -> list[Passage]:
        """``passages``, in the library's order, with those that follow on each other made one."""
        found: list[Passage] = []
        for passage in sorted(passages, key=lambda passage: passage.start):
            last = found[-1] if found else None
            if last and last.stop == passage.start and passage.start not in self.bounds:
                passage = self.span(last.start, passage.stop)
                found.pop()
            found.append(passage)
        return found

    def _starts_of(self, d: int) -> NDArray[np.int32]:
        return self.starts[self.bounds[d] : self.bounds[d + 1]]

    def _line_of(self, d: int, character: int) -> int:
        """Line, from 1, of a character of document ``d``."""
        if d not in self._line_starts:
            text = self.documents[d].text
            found = [0]
            while (at := text.find("\n", found[-1])) >= 0:
                found.append(at + 1)
            self._line_starts[d] = np.asarray(found, dtype=np.int64)
        return int(np.searchsorted(self._line_starts[d], character, side="right"))


class Passages(Sequence[Passage]):
    """A library's passages as a sequence that holds none of their text."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def __len__(self) -> int:
        return len(self._library.cuts) - 1

    @overload
    def __getitem__(self, index: int) -> Passage: ...
    @overload
    def __getitem__(self, index: slice) -> list[Passage]: ...
    def __getitem__(self, index: int | slice) -> Passage | list[Passage]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        cuts = self._library.cuts
        return self._library.span(int(cuts[i]), int(cuts[i + 1]))

    def __iter__(self) -> Iterator[Passage]:
        return (self[i] for i in range(len(self)))


def _end_to_end(parts: Sequence[NDArray[_Scalar]], dtype: type[_Scalar]) -> NDArray[_Scalar]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype)
