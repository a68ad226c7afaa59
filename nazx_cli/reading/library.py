"""The documents of a session as one sequence of tokens, with the way back to their text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, overload
from weakref import WeakValueDictionary

import numpy as np

from nazx_cli.documents.document import Document
from nazx_cli.names import OnProgress
from nazx_cli.reading.matcher import Matcher, Words, telling
from nazx_cli.reading.passages import PASSAGE_TOKENS, Passage
from nazx_cli.reading.tallies import Blocks, Positions
from nazx_cli.reading.tokenized import TokenizedDocument, tokenize_documents
from nazx_cli.reading.words import related_stems, words
from nazx_cli.tokenizer import Tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nazx_cli.kernels.lists import PostingLists

_Scalar = TypeVar("_Scalar", bound=np.generic)


class Library:
    """Documents one after another: a view that is cheap to make, of documents that others share.

    ``bounds`` is (D + 1,) int64: document d is ``ids[bounds[d]:bounds[d + 1]]``. All else that goes
    through the tokens is put together from the documents' own when it is first asked for.
    """

    def __init__(
        self,
        documents: Sequence[TokenizedDocument],
        tokenizer: Tokenizer,
        passage_tokens: int = PASSAGE_TOKENS,
    ) -> None:
        self.documents = tuple(documents)
        self.tokenizer = tokenizer
        self.passage_tokens = passage_tokens
        self.bounds: NDArray[np.int64] = np.cumsum([0, *map(len, self.documents)], dtype=np.int64)
        # Every turn of a chat keeps the passages it was given, often those of a turn before.
        self._made = WeakValueDictionary[tuple[int, int, int, int], Passage]()

    @classmethod
    def of(
        cls,
        documents: Sequence[TokenizedDocument],
        tokenizer: Tokenizer,
        passage_tokens: int = PASSAGE_TOKENS,
    ) -> Library:
        """The library that holds ``documents``, which may lie on disk."""
        kinds = (document.library for document in documents)
        return next(filter(None, kinds), cls)(documents, tokenizer, passage_tokens)

    @classmethod
    def build(
        cls,
        documents: Sequence[Document],
        tokenizer: Tokenizer,
        on_progress: OnProgress | None = None,
        passage_tokens: int = PASSAGE_TOKENS,
    ) -> Library:
        """Tokenize ``documents``; ``on_progress`` is told characters done and in all."""
        tokenized = tokenize_documents(documents, tokenizer, on_progress)
        return cls(tokenized, tokenizer, passage_tokens)

    @property
    def num_tokens(self) -> int:
        """Tokens in all documents together."""
        return int(self.bounds[-1])

    @cached_property
    def ids(self) -> NDArray[np.int32]:
        """(N,) int32, all documents' tokens one after another."""
        return _end_to_end([document.ids for document in self.documents], np.int32)

    @cached_property
    def starts(self) -> NDArray[np.int32]:
        """(N,) int32, each token's first character in its own document."""
        return _end_to_end([document.starts for document in self.documents], np.int32)

    @cached_property
    def joined(self) -> NDArray[np.bool_]:
        """(N,) bool, true for a token that carries on the word before it."""
        return _end_to_end([document.joined for document in self.documents], np.bool_)

    @cached_property
    def posting_lists(self) -> PostingLists:
        """Where each distinct token stands in ``ids``."""
        import torch

        from nazx_cli.kernels.lists import PostingLists

        return PostingLists.build(torch.from_numpy(self.ids))

    @cached_property
    def matcher(self) -> Words:
        """Finds words on the posting lists."""
        return Matcher(self)

    def has_form(self, word: str) -> bool:
        """Whether the documents have a form of the case-folded ``word``."""
        return any(self.matcher.has(each) for each in related_stems(word))

    @cached_property
    def title_words(self) -> frozenset[str]:
        """The words of the documents' names: in a question they may name a document."""
        return frozenset(word for document in self.documents for word in words(document.name))

    @cached_property
    def token_weights(self) -> NDArray[np.float64]:
        """(vocab_size,) how much each token tells: its inverse passage frequency, 0 for tokens
        that are no word of content and for those that only one passage has."""
        return telling(self.holding, len(self.cuts) - 1, self.tokenizer)

    @cached_property
    def holding(self) -> NDArray[np.int64]:
        """(vocab_size,) how many passages have each token."""
        lists = self.posting_lists
        distinct = lists.distinct.numpy()
        owners = np.repeat(np.arange(len(distinct)), np.diff(lists.offsets.numpy()))
        passages = np.searchsorted(self.cuts, lists.positions.numpy(), side="right")
        first = np.ones(len(owners), np.bool_)  # of a token's occurrences in a passage
        first[1:] = (owners[1:] != owners[:-1]) | (passages[1:] != passages[:-1])
        holding = np.zeros(self.tokenizer.vocab_size, np.int64)
        holding[distinct] = np.bincount(owners[first], minlength=len(distinct))
        return holding

    def token_ids(self, start: int, stop: int) -> NDArray[np.int32]:
        """The ids of tokens ``start`` to ``stop``, which lie in one document."""
        return self.ids[start:stop]

    @cached_property
    def blocks(self) -> Blocks:
        """The passages in blocks, as they are ranked."""
        return Blocks.of(np.searchsorted(self.cuts, self.bounds), self.passage_tokens)

    @cached_property
    def shortest(self) -> NDArray[np.integer[Any]]:
        """(B,) tokens of the shortest passage of each block."""
        return np.minimum.reduceat(np.diff(self.cuts), self.blocks.begins)

    @cached_property
    def cuts(self) -> Positions:
        """(P + 1,) token positions: passage i is tokens cuts[i] to cuts[i + 1].

        int32 as positions are: else numpy would turn all of them into int64 to compare the two.
        """
        found = [np.zeros(1, np.int32)]
        for document, start in zip(self.documents, self.bounds.tolist(), strict=False):
            found.append(document.cuts(self.passage_tokens)[1:] + start)
        return np.concatenate(found)

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
        low, high = int(self.bounds[d]), int(self.bounds[d + 1])
        if not low <= start < stop <= high:
            raise ValueError(f"tokens {start} to {stop} are no stretch of one document")
        begin, end = self.documents[d].characters(start - low, stop - low)
        return self._passage(d, begin, end, start, stop)

    def quotation(self, d: int, begin: int, end: int) -> Passage:
        """Characters ``begin`` to ``end`` of document ``d``, and no others; its tokens are those
        in which they stand."""
        starts, low = self.documents[d].starts, int(self.bounds[d])
        first = max(0, int(np.searchsorted(starts, begin, side="right")) - 1)
        last = int(np.searchsorted(starts, end, side="left"))
        return self._passage(d, begin, end, low + first, low + last)

    def _passage(self, d: int, begin: int, end: int, start: int, stop: int) -> Passage:
        """The one passage that stands there: of two that are the same there is one text."""
        where = (begin, end, start, stop)
        made = self._made.get(where)
        if made is None:
            made = self._made[where] = self._new_passage(d, *where)
        return made

    def _new_passage(self, d: int, begin: int, end: int, start: int, stop: int) -> Passage:
        tokenized = self.documents[d]
        document = tokenized.document
        text = tokenized.between(begin, end)
        blank = len(text) - len(text.lstrip())
        first = begin + (blank if blank < len(text) else 0)  # characters that can be seen
        last = max(first, begin + len(text.rstrip()) - 1)
        return Passage(
            document.name,
            tokenized.line_of(first),
            tokenized.line_of(last),
            start,
            stop,
            text,
            document.place_at(first),
            document.place_at(last),
        )

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


def _end_to_end(arrays: Sequence[NDArray[_Scalar]], dtype: type[_Scalar]) -> NDArray[_Scalar]:
    if len(arrays) == 1:
        return arrays[0]
    return np.concatenate(arrays) if arrays else np.zeros(0, dtype)
