"""Finding documents again that somebody noted: by the folder of their index and their content.

The index is only read; what is not there any more, or damaged, is not found.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nazx_cli.documents.content import made
from nazx_cli.documents.document import Origin
from nazx_cli.index import room
from nazx_cli.index.catalogue import DATABASE
from nazx_cli.index.documents import StoredDocument
from nazx_cli.index.segment import DamagedIndexError, Segment

if TYPE_CHECKING:
    from nazx_cli.reading.tokenized import TokenizedDocument
    from nazx_cli.tokenizer import Tokenizer

_FOLDER = "index"  # key of a note


def note_of(document: TokenizedDocument) -> dict[str, str]:
    """What ``Finder`` finds a document of an index by, beside its header; {} for one of memory."""
    if not isinstance(document, StoredDocument):
        return {}
    return {_FOLDER: str(document.segment.path.parent)}


def is_note(header: Mapping[str, Any]) -> bool:
    """Whether a header with its note is that of a document of an index."""
    return _FOLDER in header


class Finder:
    """Finds documents, for a model with ``tokenizer`` (None: their texts alone are wanted)."""

    def __init__(self, tokenizer: Tokenizer | None = None) -> None:
        self._tokenizer = tokenizer
        self._segments: dict[Path, Segment | None] = {}

    def find(self, header: Mapping[str, Any]) -> StoredDocument | None:
        """The document of a header with its note; None where the index has it no longer, or for
        another tokenizer.

        ``KeyError``, ``TypeError`` or ``ValueError`` for what is no such header.
        """
        folder, origin = Path(header[_FOLDER]), made(Origin, header["origin"])
        if self._tokenizer is not None and not folder.name.endswith(f"-{self._tokenizer.key}"):
            return None
        for name, number in _places(folder, origin.sha256):
            segment = self._segment(folder / name)
            if segment is None or number >= len(segment):
                continue
            if segment.hash_of(number) == origin.sha256:
                name = str(header["name"])
                return StoredDocument(name, segment, number, origin, self._tokenizer)
        return None

    def _segment(self, path: Path) -> Segment | None:
        if path not in self._segments:
            self._segments[path] = None
            with suppress(OSError, DamagedIndexError):
                self._segments[path] = Segment(path)
                room.used(path)
        return self._segments[path]


def _places(folder: Path, sha256: str) -> list[tuple[str, int]]:
    """Segment and number of a content, as the catalogue in ``folder`` has it."""
    path = folder / DATABASE
    query = "SELECT segment, number FROM contents WHERE hash = ? AND fault IS NULL"
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as database:
            return list(database.execute(query, (sha256,)))
    except sqlite3.Error:
        return []
