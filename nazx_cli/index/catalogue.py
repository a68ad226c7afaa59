"""What the index knows: which file had which content, and in which segment each content lies."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from nazx_cli.checkpoint.atomic import explain
from nazx_cli.errors import NazxError
from nazx_cli.index import room
from nazx_cli.index.segment import DamagedIndexError, Segment
from nazx_cli.reading.passages import PASSAGE_TOKENS

if TYPE_CHECKING:
    from nazx_cli.index.build import Builder
    from nazx_cli.tokenizer import Tokenizer

_VERSION = 2  # of segments, readers, how passages are cut and stems made
DATABASE = "catalogue.db"
"""Its name in the folder of an index."""
PATIENCE = 30.0
"""Seconds to wait for another process's transaction."""
_AT_ONCE = 500  # values of one query
_SETTLED = 2_000_000_000  # nanoseconds: a file system's times are no finer than that, at worst
_LITTER = 3600.0  # seconds after which a file that nobody knows is nobody's work in hand
_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_LARGEST = (1 << 63) - 1  # number that the database holds; file systems have larger ones

_TABLES = """
CREATE TABLE IF NOT EXISTS files (
    path BLOB PRIMARY KEY, size INTEGER, mtime INTEGER, ctime INTEGER, inode INTEGER, hash TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS contents (
    hash TEXT PRIMARY KEY, segment TEXT, number INTEGER, fault TEXT
) WITHOUT ROWID;
"""


class Seen(NamedTuple):
    """A file as the system tells of it: as long as all of this stands, its content does."""

    size: int
    mtime: int
    ctime: int
    inode: int

    @classmethod
    def of(cls, state: os.stat_result) -> Seen:
        """Of what ``stat`` told."""
        inode = state.st_ino & _LARGEST
        return cls(state.st_size, state.st_mtime_ns, state.st_ctime_ns, inode)


class Lying(NamedTuple):
    """Where a content lies; ``fault`` is why it is no document, and then it lies nowhere."""

    segment: str
    number: int
    fault: str | None


class Catalogue:
    """The index of ``folder`` for documents as ``tokenizer`` has them; several processes may use
    it at once. ``NazxError`` where it cannot be written, or where what is in use takes more than
    ``limit`` bytes. Close it when all is taken in."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, limit: int) -> None:
        self._root, self._limit = folder, limit
        self.folder = folder / f"v{_VERSION}-{PASSAGE_TOKENS}-{tokenizer.key}"
        self._segments: dict[str, Segment] = {}
        with self._explained():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._database = self._opened()
        self._sweep()

    def close(self) -> None:
        """Let go of the database; segments in use stay open."""
        self._database.close()

    def known(self, paths: Sequence[str]) -> dict[str, tuple[Seen, str]]:
        """How files were seen last, and the hash they had; "" where no reader took them."""
        rows = self._rows("SELECT * FROM files WHERE path IN", list(map(os.fsencode, paths)))
        return {os.fsdecode(row[0]): (Seen(*row[1:-1]), row[-1]) for row in rows}

    def lying(self, hashes: Iterable[str]) -> dict[str, Lying]:
        """Where contents lie, of those that do."""
        rows = self._rows("SELECT * FROM contents WHERE hash IN", list(hashes))
        return {row[0]: Lying(*row[1:]) for row in rows}

    def segment(self, name: str) -> Segment | None:
        """An open segment; None where it is gone or damaged: its contents are then forgotten."""
        if name not in self._segments:
            path = self.folder / name
            try:
                self._segments[name] = Segment(path)
                room.used(path)
            except (FileNotFoundError, DamagedIndexError):
                with self._change() as database:
                    database.execute("DELETE FROM contents WHERE segment = ?", (name,))
                return None
            except OSError as error:
                raise self._told(error) from None
        return self._segments[name]

    def remember(self, files: Mapping[str, tuple[Seen, str]]) -> None:
        """Note the hashes of files, but of those that may change yet without its being seen."""
        settled = time.time_ns() - _SETTLED
        rows = [
            (os.fsencode(path), *seen, digest)
            for path, (seen, digest) in files.items()
            if max(seen.mtime, seen.ctime) < settled
        ]
        with self._change() as database:
            database.executemany("REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", rows)

    def refuse(self, digest: str, fault: str) -> None:
        """Note that a content is no document."""
        with self._change() as database:
            database.execute("REPLACE INTO contents VALUES (?, '', 0, ?)", (digest, fault))

    def put(self, builder: Builder) -> None:
        """Write a segment; only once it is whole on the disk is it known."""
        name, hashes = f"{uuid4().hex}.safetensors", builder.hashes
        path = self.folder / name
        with self._explained():
            self.folder.mkdir(parents=True, exist_ok=True)  # somebody may have emptied the index
            builder.write(path)
        in_use = {self.folder / each for each in (*self._segments, name)}
        try:
            room.trim(self._root, self._limit, in_use)
        except NazxError:
            path.unlink(missing_ok=True)
            raise
        self._segments[name] = Segment(path)
        rows = [(digest, name, number) for number, digest in enumerate(hashes)]
        with self._change() as database:  # what another process put in meanwhile does no harm
            database.executemany("REPLACE INTO contents VALUES (?, ?, ?, NULL)", rows)

    def small_segments(self, tokens: int) -> list[str]:
        """The names of segments of fewer tokens."""
        found = ((name, self.segment(name)) for name in self._names())
        return [
            name
            for name, segment in found
            if segment and sum(segment.document(d).tokens for d in range(len(segment))) < tokens
        ]

    def _names(self) -> list[str]:
        """Of all segments that something lies in."""
        with self._explained():
            rows = self._database.execute("SELECT DISTINCT segment FROM contents")
            return [name for (name,) in rows if name]

    def _rows(self, query: str, values: Sequence[str | bytes]) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        with self._explained():
            for at in range(0, len(values), _AT_ONCE):
                some = values[at : at + _AT_ONCE]
                marks = ", ".join("?" * len(some))
                found += self._database.execute(f"{query} ({marks})", some)
        return found

    def _opened(self) -> sqlite3.Connection:
        """The database; a damaged one is thrown away, for all of it can be made again."""
        path = self.folder / DATABASE
        database = sqlite3.connect(path, timeout=PATIENCE)
        if not _is_whole(database):
            database.close()
            path.unlink()
            database = sqlite3.connect(path, timeout=PATIENCE)
            database.executescript(_TABLES)
        return database

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._explained(), self._database:
            yield self._database

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._told(error) from None
        except sqlite3.Error as error:
            full = _kind(error) in _FULL
            what = "disk is full" if full else "index cannot be used"
            raise NazxError(
                f"the {what}: {self.folder}: {error}", "free some space, or run: nazx index clear"
            ) from None

    def _told(self, error: OSError) -> NazxError:
        told = explain(error, self.folder)
        return NazxError(told.message, f"{told.hint}; nazx index clear empties the index")

    def _sweep(self) -> None:
        """Remove files that nothing refers to: of a process that was killed, made in vain, or of
        an older version, which nobody reads again."""
        for path in self._root.glob("v*-*"):
            version = path.name[1:].partition("-")[0]
            if version.isdecimal() and int(version) < _VERSION:
                shutil.rmtree(path, ignore_errors=True)
        known = set(self._names())
        for path in (*self.folder.glob("*.safetensors"), *self.folder.glob("*.partial")):
            with suppress(OSError):
                if path.name not in known and time.time() - path.stat().st_mtime > _LITTER:
                    path.unlink()


def _is_whole(database: sqlite3.Connection) -> bool:
    """Whether all of it can be read; its tables are made where it is new."""
    try:
        database.executescript(_TABLES)
        return bool(database.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
    except sqlite3.DatabaseError as error:
        if _kind(error) in _BROKEN:
            return False
        database.close()
        raise


def _kind(error: sqlite3.Error) -> int:
    """What went wrong, without what more is known of it."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
