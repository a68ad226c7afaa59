"""Documents as tokens: where each begins, which carry on a word, where passages end."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from nazx_cli.documents.content import dumps, key_of
from nazx_cli.documents.document import Document
from nazx_cli.names import OnProgress
from nazx_cli.reading.passages import PASSAGE_TOKENS, cut
from nazx_cli.reading.words import is_unspaced, is_word_character
from nazx_cli.tokenizer import Tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nazx_cli.reading.library import Library
    from nazx_cli.tokenizer import Tokenizer


_NONE, _SPACED, _UNSPACED = 0, 1, 2  # kinds of characters
_CHUNK = 1 << 18  # characters looked at in one go: some tens of bytes each while they are


def joined_tokens(text: str, starts: NDArray[np.int32]) -> NDArray[np.bool_]:
    """(N,) true where a token begins inside a word, for tokens beginning at ``starts`` (N,)."""
    joined = np.zeros(len(starts), np.bool_)
    for begin in range(0, len(text), _CHUNK):
        # int32 as the starts are: else numpy would turn all of them into int64 each time
        ends = np.array((begin, min(begin + _CHUNK, len(text))), np.int32)
        first, last = np.searchsorted(starts, ends)
        if first == last:
            continue
        kinds = _kinds(text[max(0, begin - 1) : begin + _CHUNK])
        at = starts[first:last] - np.int32(max(0, begin - 1))
        here = kinds[at]  # kind of each token's first character
        before = np.where(at > 0, kinds[at - 1], _NONE)  # and of the one before that
        carries_on = (here == _SPACED) & (before == _SPACED)
        shared = np.flatnonzero(at[1:] == at[:-1]) + 1  # several tokens make up one character
        carries_on[shared] = here[shared] != _NONE
        joined[first:last] = carries_on
    return joined


def word_starts(text: str) -> NDArray[np.int32]:
    """(w,) the characters at which the words of ``text`` begin, as ``words.WORD`` has them."""
    found = [np.zeros(0, np.int32)]
    for begin in range(0, len(text), _CHUNK):
        first = max(0, begin - 1)
        kinds = _kinds(text[first : begin + _CHUNK])
        before = np.append(_NONE, kinds[:-1])
        starts = (kinds == _UNSPACED) | ((kinds == _SPACED) & (before != _SPACED))
        starts[: begin - first] = False
        found.append((first + np.flatnonzero(starts)).astype(np.int32))
    return np.concatenate(found)


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


@dataclass(frozen=True, eq=False)
class TokenizedDocument:
    """A document and its tokens; never changed, so that any number of libraries share it.

    ids     (n,) int32
    starts  (n,) int32, each token's first character in the document's text

    Two are equal only where they are the same object; ``content_key`` tells equal contents.
    """

    document: Document
    ids: NDArray[np.int32]
    starts: NDArray[np.int32]

    @classmethod
    def build(
        cls, document: Document, tokenizer: Tokenizer, on_progress: OnProgress | None = None
    ) -> TokenizedDocument:
        """Tokenize ``document``; ``on_progress`` is told characters done and in all."""
        tokens = tokenizer.encode_document(document.text, on_progress)
        return cls(document, tokens.ids, tokens.starts)

    def revised(
        self, document: Document, tokenizer: Tokenizer, on_progress: OnProgress | None = None
    ) -> TokenizedDocument:
        """``build(document)``, quick where ``document`` is this one with a few edits.

        ``tokenizer`` must be the one that this one was built with.
        """
        old = Tokens(self.ids, self.starts)
        tokens = tokenizer.encode_edited(self.document.text, old, document.text, on_progress)
        return TokenizedDocument(document, tokens.ids, tokens.starts)

    @property
    def library(self) -> type[Library] | None:
        """What holds such documents, where it is not a plain library."""
        return None

    def __len__(self) -> int:
        return len(self.ids)

    def __bool__(self) -> bool:
        return True  # a document without tokens is one all the same

    @property
    def name(self) -> str:
        """The document's name."""
        return self.document.name

    @property
    def text(self) -> str:
        """The document's text."""
        return self.document.text

    @cached_property
    def key(self) -> str:
        """SHA-256 of name and text, hexadecimal."""
        digest = hashlib.sha256(self.document.name.encode("utf-8", "surrogatepass") + b"\0")
        digest.update(self.document.text.encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    @property
    def header(self) -> bytes:
        """All of the document but its text, as JSON."""
        document = self.document
        return dumps(
            {
                "name": document.name,
                "format": document.format,
                "places": [[place.start, place.label] for place in document.places],
                "origin": asdict(document.origin) if document.origin else None,
            }
        )

    @cached_property
    def content_key(self) -> str:
        """Names the document by all of it, so that what is saved can be held to it."""
        return key_of(self.key.encode() + self.header)

    @cached_property
    def joined(self) -> NDArray[np.bool_]:
        """(n,) true for a token that carries on the word before it."""
        return joined_tokens(self.document.text, self.starts)

    def cuts(self, passage_tokens: int = PASSAGE_TOKENS) -> NDArray[np.int32]:
        """(p + 1,) int32, token positions: passage i is ids[cuts[i]:cuts[i + 1]]; at least [0]."""
        if passage_tokens not in self._cuts:
            found = cut(self.document.text, self.starts, self.joined, passage_tokens)
            self._cuts[passage_tokens] = found
        return self._cuts[passage_tokens]

    def line_of(self, character: int) -> int:
        """Line, from 1, of a character of the text."""
        return int(np.searchsorted(self._line_starts, character, side="right"))

    def characters(self, start: int, stop: int) -> tuple[int, int]:
        """First and last but one character of tokens ``start`` to ``stop``, all of which stand
        between: what no token has goes with the first, or the last."""
        begin = int(self.starts[start]) if start > 0 else 0
        return begin, int(self.starts[stop]) if stop < len(self) else self.num_characters

    def between(self, begin: int, end: int) -> str:
        """Characters ``begin`` to ``end`` of the text."""
        return self.document.text[begin:end]

    @property
    def num_characters(self) -> int:
        """Characters of the text."""
        return len(self.document.text)

    @cached_property
    def _cuts(self) -> dict[int, NDArray[np.int32]]:
        return {}

    @cached_property
    def _line_starts(self) -> NDArray[np.int64]:
        ends = (found.end() for found in re.finditer("\n", self.document.text))
        return np.fromiter(chain((0,), ends), np.int64)


def tokenize_documents(
    documents: Sequence[Document], tokenizer: Tokenizer, on_progress: OnProgress | None = None
) -> tuple[TokenizedDocument, ...]:
    """Tokenize ``documents``; ``on_progress`` is told characters done and in all."""
    total = sum(len(document.text) for document in documents)
    before = 0
    tokenized: list[TokenizedDocument] = []
    for document in documents:

        def report(done: int, _: int, before: int = before) -> None:
            if on_progress:
                on_progress(before + done, total)

        tokenized.append(TokenizedDocument.build(document, tokenizer, report))
        before += len(document.text)
    return tuple(tokenized)
