"""Finding documents again that somebody noted: by the folder of their index and their content.
Where that folder is gone the index may have moved, with all of ``NAZX_HOME``: it is looked for
there.

The index is only read. What is not there any more, or damaged, is not found; where it cannot be
told whether it is there, that is an error: what is not found may be forgotten by who asked.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nazx_cli.documents.content import dumps, key_of, made
from nazx_cli.documents.document import Origin
from nazx_cli.errors import NazxError, first_line
from nazx_cli.index import room
from nazx_cli.index.catalogue import DATABASE, PATIENCE
from nazx_cli.index.documents import StoredDocument, key_by
from nazx_cli.index.segment import DamagedIndexError, Segment

if TYPE_CHECKING:
    from nazx_cli.reading.tokenized import TokenizedDocument
    from nazx_cli.tokenizer import Tokenizer

_FOLDER = "index"  # key of a note
_NO_CATALOGUE = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def note_of(document: TokenizedDocument) -> dict[str, str]:
    """What ``Finder`` finds a document of an index by, beside its header; {} for one of memory."""
    if not isinstance(document, StoredDocument):
        return {}
    return {_FOLDER: str(document.segment.path.parent)}


def is_note(header: Mapping[str, Any]) -> bool:
    """Whether a header with its note is that of a document of an index."""
    return _FOLDER in header


class Finder:
    """Finds documents, for a model with ``tokenizer`` (None: their texts alone are wanted). Close
    it when all are found; they stay open."""

    def __init__(self, tokenizer: Tokenizer | None = None) -> None:
        self._tokenizer = tokenizer
        self._catalogues: dict[Path, sqlite3.Connection | None] = {}
        self._segments: dict[Path, Segment | None] = {}

    def close(self) -> None:
        """Let go of the catalogues."""
        for each in self._catalogues.values():
            if each is not None:
                each.close()
        self._catalogues.clear()

    def find(self, header: Mapping[str, Any], key: str) -> StoredDocument | None:
        """The document of a header with its note, whose ``content_key`` is ``key``; None where the
        index has it no longer, or for another tokenizer.

        ``KeyError``, ``TypeError`` or ``ValueError`` for what is no such header, or not that of
        ``key``; ``NazxError`` where the index cannot be read.
        """
        folder, origin, name = Path(header[_FOLDER]), made(Origin, header["origin"]), header["name"]
        if not folder.exists():
            folder = room.index_folder() / folder.name
        noted = dumps({field: header[field] for field in header if field != _FOLDER})
        if key_of(key_by(origin.sha256, name).encode() + noted) != key:
            raise ValueError(f"where {name} lies is not what was saved")
        if self._tokenizer is not None and not folder.name.endswith(f"-{self._tokenizer.key}"):
            return None
        try:
            for row in self._places(folder, origin.sha256):
                found = self._found(folder / row[0], row[1], name, origin)
                if found is not None and found.content_key == key:
                    return found
        except OSError as error:
            raise _unread(folder, error.strerror or str(error)) from None
        return None

    def _found(self, path: Path, number: int, name: str, origin: Origin) -> StoredDocument | None:
        """The document of that number in the segment at ``path``, where it is that of ``origin``
        and can be read."""
        segment = self._segment(path)
        if segment is None or not 0 <= number < len(segment):
            return None
        if segment.hash_of(number) != origin.sha256:
            return None
        document = StoredDocument(name, segment, number, origin, self._tokenizer)
        with suppress(DamagedIndexError, LookupError, ValueError, TypeError):
            _ = document.content_key  # of its record too
            return document
        return None

    def _segment(self, path: Path) -> Segment | None:
        if path not in self._segments:
            self._segments[path] = None
            with suppress(FileNotFoundError, NotADirectoryError, DamagedIndexError):
                self._segments[path] = Segment(path)
                room.used(path)
        return self._segments[path]

    def _places(self, folder: Path, sha256: str) -> list[tuple[str, int]]:
        """Segment and number of a content, as the catalogue in ``folder`` has it."""
        query = "SELECT segment, number FROM contents WHERE hash = ? AND fault IS NULL"
        try:
            if folder not in self._catalogues:
                self._catalogues[folder] = _catalogue(folder / DATABASE)
            database = self._catalogues[folder]
            return [] if database is None else list(database.execute(query, (sha256,)))
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF in _NO_CATALOGUE:
                return []
            raise _unread(folder, first_line(error)) from None


def _catalogue(path: Path) -> sqlite3.Connection | None:
    """None where there is none. It is opened to be written, though nobody does: a transaction that
    a killed process left has to be taken back before it can be read."""
    if not path.exists():
        return None
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=PATIENCE)


def _unread(folder: Path, reason: str) -> NazxError:
    return NazxError(
        f"the index cannot be read: {folder}: {reason}",
        "try again; nazx index clear empties the index",
    )
