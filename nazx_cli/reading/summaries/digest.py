"""An account of documents in their own sentences, as long as the question asks for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

from nazx_cli.reading.passages import Passage
from nazx_cli.reading.recall import occurrences
from nazx_cli.reading.summaries.extract import Extractor
from nazx_cli.reading.summaries.overview import Length, focus
from nazx_cli.reading.tallies import Positions

if TYPE_CHECKING:
    from nazx_cli.reading.library import Library

USUAL_WORDS, LEAST_WORDS = 300, 40
"""Words of an account of everything, at most and at least, where the question does not say."""
PART_WORDS = 200
"""Words of an account of what is named, at most."""
_SHARE = 6  # a short text's account has one word for so many of its own
_CHARACTERS = 6  # of a word, with the space after it
_WORDS_PER_TOKEN = 0.7  # of English text, rather too few
_PER_DOCUMENT = 25  # words: of more documents than this leaves room for, some are left out
_PARAGRAPH = 70  # words after which a paragraph ends


@dataclass(frozen=True)
class Excerpt:
    """What one document adds to the account: its text, ready to be shown, and its sentences."""

    text: str
    passages: tuple[Passage, ...]


@dataclass(frozen=True)
class Digest:
    """A plan of an account: how many words come from which documents.

    ``cut`` is true where it is shorter than was asked for, ``left_out`` counts documents that it
    has no room for.
    """

    library: Library
    length: Length
    words: dict[int, int]
    about: tuple[Positions, ...]
    cut: bool
    left_out: int

    def excerpts(self) -> Iterator[Excerpt]:
        """The account, document by document."""
        left = self.length.sentences
        for d, words in self.words.items():
            most = None if left is None else max(1, left // len(self.words))
            if excerpt := self._excerpt(d, words, most):
                yield excerpt

    def _excerpt(self, d: int, words: int, most: int | None) -> Excerpt | None:
        tokenized = self.library.documents[d]
        low, high = int(self.library.bounds[d]), int(self.library.bounds[d + 1])
        within = (np.searchsorted(at, (low, high)) for at in self.about)
        inside = [at[a:b] - low for at, (a, b) in zip(self.about, within, strict=True)]
        # The token in which a word begins may begin with the space before it.
        about = [tokenized.starts[at].astype(np.int64) + 1 for at in inside if len(at)]
        spans = Extractor(tokenized.document.text).choose(words, most, about)
        if not spans:
            return None
        passages = tuple(self.library.quotation(d, *span) for span in spans)
        name = PurePath(tokenized.name).name if len(self.words) > 1 else ""
        return Excerpt(_laid_out(passages, name, self.length.bullets), passages)


def digest(library: Library, question: str, most_tokens: int) -> Digest:
    """What ``question``, a request for a summary or the like, is answered by: in at most about
    ``most_tokens`` tokens, from all documents or from those that have what it names."""
    length = Length.asked(question)
    about = tuple(occurrences(library, term) for term in focus(library, question))
    documents = _holding(library, about)
    sizes = {d: library.documents[d].num_characters // _CHARACTERS for d in documents}
    total = sum(sizes.values())
    fewest = _PER_DOCUMENT * len(documents)
    usual = PART_WORDS if about else USUAL_WORDS
    wanted = length.words or round(
        length.times * min(usual, max(LEAST_WORDS, total // _SHARE, fewest))
    )
    if length.sentences is not None:
        wanted = length.sentences * 2 * _PER_DOCUMENT
    allowed = max(1, round(_WORDS_PER_TOKEN * most_tokens))
    words = min(wanted, allowed)
    count = max(1, min(len(documents), words // _PER_DOCUMENT))
    if length.sentences is not None:
        count = min(count, length.sentences)
    chosen = [documents[(at * len(documents)) // count] for at in range(count)] if documents else []
    least = min(_PER_DOCUMENT, words)
    spare, held = words - least * len(chosen), max(1, sum(sizes[d] for d in chosen))
    shares = {d: least + spare * sizes[d] // held for d in chosen}
    return Digest(
        library,
        length,
        shares,
        about,
        bool(length.words) and allowed < wanted,
        len(documents) - len(chosen),
    )


def _holding(library: Library, about: tuple[Positions, ...]) -> list[int]:
    """The documents that have text, and of what is named something."""
    if not about:
        found = np.flatnonzero(np.diff(library.bounds))
    else:
        owners = [np.searchsorted(library.bounds, at, side="right") - 1 for at in about]
        found = np.unique(np.concatenate(owners))
    return [int(d) for d in found]


def _laid_out(passages: tuple[Passage, ...], name: str, bullets: bool) -> str:
    """The sentences in short paragraphs, or as a list, under the document's name if it has one."""
    lines = [" ".join(passage.text.split()) for passage in passages]
    head = f"{name}:" if name else ""
    if bullets:
        return "\n".join([*filter(None, [head]), *(f"- {line}" for line in lines)])
    paragraphs: list[list[str]] = [[head] if head else []]
    words = 0
    for line in lines:
        if words >= _PARAGRAPH:
            paragraphs.append([])
            words = 0
        paragraphs[-1].append(line)
        words += len(line.split())
    return "\n\n".join(" ".join(each) for each in paragraphs)
