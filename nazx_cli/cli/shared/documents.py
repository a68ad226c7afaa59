"""The documents that ``--file`` names: read into memory or, where there are many, by the index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from nazx_cli.cli.shared.options import option, size_option
from nazx_cli.names import INDEXING

if TYPE_CHECKING:
    from nazx_cli.documents.document import Document
    from nazx_cli.documents.gather import Listing
    from nazx_cli.index.shelf import Index
    from nazx_cli.reading.tokenized import TokenizedDocument
    from nazx_cli.tokenizer import Tokenizer
    from nazx_cli.ui.terminal.screen import Screen

_NAMED = 3  # left-out files that are named; the others are counted


@dataclass(frozen=True)
class IndexOptions:
    """When documents are kept in the index, and how big it may be."""

    index: Annotated[
        str, option("--index", "Keep documents in an index on disk.", choices=INDEXING)
    ] = "auto"
    index_size: Annotated[
        int, size_option("--index-size", "Most disk space of the index.", show_default="20GB")
    ] = 20_000_000_000

    def index_of(self) -> Index:
        """The index."""
        from nazx_cli.index.room import index_folder
        from nazx_cli.index.shelf import Index

        return Index(index_folder(), self.index_size, self.index)


@dataclass(frozen=True)
class Given:
    """Documents that were looked at: ``documents`` are those that were read, None where they are
    for the index, which needs a model's tokenizer first."""

    listing: Listing
    index: Index
    screen: Screen
    documents: tuple[Document, ...] | None

    @classmethod
    def look(cls, specs: Sequence[str], piped: str | None, index: Index, screen: Screen) -> Given:
        """Find what ``specs`` name, and read it where that is not too much."""
        from nazx_cli.documents.gather import listed

        listing = listed(specs, piped)
        documents = None if index.takes(listing) else _read(listing, screen)
        return cls(listing, index, screen, documents)

    def tokenized(
        self, tokenizer: Tokenizer, *, in_memory: bool = False
    ) -> tuple[TokenizedDocument, ...]:
        """The documents by ``tokenizer``; ``in_memory`` where a model attends to all of them."""
        documents = self.documents
        if documents is None and not in_memory:
            with self.screen.long_bar("indexing") as bar:
                taken = self.index.take_in(self.listing, tokenizer, on_progress=bar.update)
            self.screen.tell_skipped(taken.skipped, _NAMED)
            if taken.new:
                self.screen.note(f"note: {taken.told}")
            return taken.documents
        if documents is None:
            documents = _read(self.listing, self.screen)
        from nazx_cli.reading.tokenized import tokenize_documents

        with self.screen.bar("tokenizing") as bar:
            return tokenize_documents(documents, tokenizer, bar.update)


def read_documents(specs: Sequence[str], screen: Screen) -> tuple[Document, ...]:
    """The documents of ``--file`` in memory; what a folder or glob left out is mentioned."""
    from nazx_cli.documents.gather import listed

    return _read(listed(specs), screen)


def _read(listing: Listing, screen: Screen) -> tuple[Document, ...]:
    from nazx_cli.documents.gather import read_all

    with screen.bar("reading") as bar:
        gathered = read_all(listing, bar.update)
    screen.tell_skipped(gathered.skipped, _NAMED)
    return gathered.documents
