"""The index as sessions use it: which documents go into it, and what they come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nazx_cli.errors import UsageError
from nazx_cli.index.documents import StoredDocument
from nazx_cli.index.intake import Taken, take_in
from nazx_cli.memory.estimate import TextSize
from nazx_cli.names import INDEX_FROM, INDEXING, OnNamedProgress

if TYPE_CHECKING:
    from nazx_cli.config import ModelConfig
    from nazx_cli.documents.gather import Listing
    from nazx_cli.reading.tokenized import TokenizedDocument
    from nazx_cli.tokenizer import Tokenizer


@dataclass(frozen=True)
class Index:
    """The index in ``folder``, of at most ``limit`` bytes; ``when``: one of ``INDEXING``."""

    folder: Path
    limit: int
    when: str = "auto"

    def __post_init__(self) -> None:
        if self.when not in INDEXING:
            told = f"there is no --index {self.when!r}"
            raise UsageError(told, f"use one of {', '.join(INDEXING)}")

    def takes(self, listing: Listing) -> bool:
        """Whether these are documents for it."""
        return bool(listing.items) and self.takes_bytes(listing.nbytes)

    def takes_bytes(self, nbytes: int) -> bool:
        """Whether documents of so many bytes are for it."""
        return self.when == "always" or (self.when == "auto" and nbytes >= INDEX_FROM)

    def take_in(
        self,
        listing: Listing,
        tokenizer: Tokenizer,
        present: Sequence[TokenizedDocument] = (),
        on_progress: OnNamedProgress | None = None,
    ) -> Taken:
        """See ``intake.take_in``."""
        return take_in(listing, tokenizer, self.folder, self.limit, present, on_progress)


def is_indexed(documents: Sequence[TokenizedDocument]) -> bool:
    """Whether any of them lies in an index."""
    return any(isinstance(document, StoredDocument) for document in documents)


def size_of(documents: Sequence[TokenizedDocument], config: ModelConfig) -> TextSize:
    """What documents come to for a model of ``config``; those of an index are read for none of
    it."""
    loose = TextSize.of(
        (each.ids for each in documents if not isinstance(each, StoredDocument)), config
    )
    stored = [each for each in documents if isinstance(each, StoredDocument)]
    if not stored:
        return loose
    tokens = sum(map(len, stored))
    seen = np.zeros(config.vocab_size, np.bool_)
    for each in stored:
        seen[each.segment.distinct(each.number)[0]] = True
    distinct = min(loose.distinct + int(seen.sum()), config.vocab_size)
    return replace(loose, tokens=loose.tokens + tokens, distinct=distinct, indexed=tokens)
