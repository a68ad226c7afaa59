"""The file beneath a session: its tables, and its errors in plain words."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from nazx_cli.documents.content import dumps, key_of, loads
from nazx_cli.errors import NazxError, UsageError, first_line

APPLICATION = 0x4E417A58  # "NAzX": tells a session from any other SQLite file
_WAIT = 5.0  # seconds for another process that lists sessions, or writes the one listed
_BESIDE = ("-journal", "-wal", "-shm")  # what SQLite keeps beside a file, by its name
_CONTENTS = ("branches", "turns", "parts")
_NO_ACCESS = ("unable to open", "readonly", "access permission", "not authorized")
NOT_AS_WRITTEN = (
    *(LookupError, ValueError, TypeError, AttributeError, OverflowError, RecursionError),
    *(zlib.error, UsageError),  # the latter of a setting that nobody could have chosen
)


def _create_tables(database: sqlite3.Connection) -> None:
    """Version 1. Documents (``parts``) and turns are named by their content and never changed."""
    for statement in (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
        "CREATE TABLE branches (name BLOB PRIMARY KEY, state BLOB NOT NULL)",
        "CREATE TABLE turns (key TEXT PRIMARY KEY, turn BLOB NOT NULL)",
        """CREATE TABLE parts (
            key TEXT PRIMARY KEY, document BLOB NOT NULL, tokens INTEGER NOT NULL,
            nbytes INTEGER NOT NULL, ids BLOB NOT NULL, vocabulary BLOB NOT NULL,
            text BLOB, starts BLOB)""",
    ):
        database.execute(statement)


def _sign_branches(database: sqlite3.Connection) -> None:
    """Version 2. ``meta`` names all branches by their content: one that is lost is missed."""
    branches = list(database.execute("SELECT name, state FROM branches"))
    if branches:
        put_meta(database, {"states": key_of_states(branches)})


def _name_indexed(database: sqlite3.Connection) -> None:
    """Version 3. A document may lie in the index: its header tells where, and the rest is empty."""


def key_of_states(branches: Iterable[tuple[bytes, bytes]]) -> str:
    """Names all branches (name and state, as they are stored) by their content."""
    return key_of(
        b"".join(len(each).to_bytes(8, "big") + each for row in sorted(branches) for each in row)
    )


def put_meta(database: sqlite3.Connection, values: dict[str, Any]) -> None:
    """Have the file say this of the session as a whole, besides what it says already."""
    rows = [(key, dumps(value)) for key, value in values.items()]
    database.executemany("REPLACE INTO meta VALUES (?, ?)", rows)


MIGRATIONS: list[Callable[[sqlite3.Connection], None]] = [
    _create_tables,
    _sign_branches,
    _name_indexed,
]
"""Step n makes a file of version n one of version n + 1; an empty file is of version 0."""


def require_file(path: Path) -> None:
    """``NazxError`` where something other than a file lies at ``path``."""
    if path.exists() and not path.is_file():
        raise NazxError(
            f"{path} is no file, so it is no session", "move it away, or choose another name"
        )


def connect(path: Path, *settings: str) -> sqlite3.Connection:
    """Open the file that is there, whatever it is, with pragmas; close the connection after use.

    A rollback journal, not a write-ahead log: a session at rest is one file, readable without
    writing beside it, also on a network drive.
    """
    database = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=_WAIT,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        # EXTRA: also the journal's removal, which makes a change final, is on the disk.
        for setting in (*settings, "trusted_schema = OFF", "synchronous = EXTRA"):
            database.execute(f"PRAGMA {setting}")
    except BaseException:
        database.close()
        raise
    return database


def create(path: Path) -> sqlite3.Connection:
    """Open a file to keep a session in, made where it is missing, its tables up to date.

    Only who holds the session's lock may call this.
    """
    if path.exists():
        keep_before(path)
    if not path.exists() or not path.stat().st_size:
        _create_empty(path)
    database = connect(path)
    try:
        bring_up_to_date(database, path)
    except BaseException:
        database.close()
        raise
    return database


def _create_empty(path: Path) -> None:
    """Make a session without content appear at ``path``, whole.

    SQLite itself cannot take back the beginning of a new file that a kill leaves unfinished.
    """
    scratch = path.with_name(f".{path.stem}.partial")
    delete(scratch)
    os.close(os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with closing(connect(scratch)) as database:
        bring_up_to_date(database, scratch)
    delete(path)  # the journal of a file that somebody deleted would be played back into this one
    scratch.replace(path)


def delete(path: Path) -> None:
    """Remove a database with what a killed process may have left beside it."""
    for each in parts_of(path):
        each.unlink(missing_ok=True)


def parts_of(path: Path) -> list[Path]:
    """The files that make up a database, whether they are there or not."""
    return [path, *(path.with_name(f"{path.name}{end}") for end in _BESIDE)]


def copy(path: Path, to: Path) -> None:
    """Copy a database as it lies there, with what is beside it, byte by byte."""
    delete(to)
    for source, target in zip(parts_of(path), parts_of(to), strict=True):
        if source.exists():
            shutil.copyfile(source, target)
            target.chmod(0o600)


def before(path: Path) -> Path:
    """Where a session lies as it was before SQLite took back what a killed process had begun."""
    return path.with_name(f".{path.stem}.before")


def keep_before(path: Path) -> None:
    """Keep the file while it is not known to be whole: what lies beside need not belong to it."""
    if any(each.exists() for each in parts_of(path)[1:]) and not before(path).exists():
        copy(path, before(path))


def bring_up_to_date(database: sqlite3.Connection, path: Path) -> None:
    """Migrate an older file, all of it or nothing; refuse a newer one and one of another kind."""
    found = checked_version(database, path)
    if found == len(MIGRATIONS):
        return
    if found == 0:
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")
    with transaction(database):
        for step in MIGRATIONS[found:]:
            step(database)
        database.execute(f"PRAGMA application_id = {APPLICATION}")
        database.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def checked_version(database: sqlite3.Connection, path: Path) -> int:
    """The file's format version, 0 for an empty one; ``NazxError`` where it is none of ours."""
    (found,) = database.execute("PRAGMA user_version").fetchone()
    (kind,) = database.execute("PRAGMA application_id").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if kind != APPLICATION and (found or tables):
        raise NazxError(f"{path} is no session of NazX", "choose another name with --session NAME")
    if found < 0 or bool(found) != bool(tables) or (not tables and path.stat().st_size):
        raise damaged(path, "most of it is missing")
    strange = database.execute(
        "SELECT type, name FROM sqlite_master WHERE type NOT IN ('table', 'index')"
    ).fetchone()
    if strange is not None:
        raise damaged(path, f"it holds a {strange[0]} named {strange[1]}, which NazX never made")
    if found > len(MIGRATIONS):
        raise NazxError(
            f"session {path.stem} was written by a newer NazX (format {found}; "
            f"this one reads up to {len(MIGRATIONS)})",
            "upgrade with: pip install --upgrade nazx",
        )
    return int(found)


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All of what happens inside, or nothing."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        # A full disk has it rolled back already.
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def read_meta(database: sqlite3.Connection) -> dict[str, Any] | None:
    """What the file says of the session as a whole; None: nothing was saved yet.

    ``LookupError`` where something was, and it does not say what.
    """
    rows = database.execute("SELECT key, value FROM meta")
    meta = {key: loads(value) for key, value in rows}
    if "saved" not in meta and (meta or any(_rows(database, name) for name in _CONTENTS)):
        raise LookupError("saved")
    return meta or None


def _rows(database: sqlite3.Connection, table: str) -> int:
    (count,) = database.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(count)


def stored(database: sqlite3.Connection, table: str) -> set[str]:
    """Keys of the ``parts`` or ``turns`` that the file holds."""
    return {key for (key,) in database.execute(f"SELECT key FROM {table}")}


def used(database: sqlite3.Connection, table: str) -> set[str]:
    """Keys of the ``parts`` or ``turns`` that some branch has."""
    states = [loads(state) for (state,) in database.execute("SELECT state FROM branches")]
    return {key for state in states for key in state[table]}


def delete_unused(database: sqlite3.Connection) -> None:
    """Remove documents and turns that no branch has."""
    for table in ("parts", "turns"):
        unused = stored(database, table) - used(database, table)
        database.executemany(f"DELETE FROM {table} WHERE key = ?", [(key,) for key in unused])


def purge(database: sqlite3.Connection) -> None:
    """Remove what no branch has, and give its space back."""
    with transaction(database):
        delete_unused(database)
    # Not execute(): that frees a single page.
    database.executescript("PRAGMA incremental_vacuum")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what can go wrong with the file ``path`` into one line with a next step."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise explain(error, path) from None


@contextmanager
def damage_explained(path: Path) -> Iterator[None]:
    """As ``explained``, and also what reading a file can come upon that was not written so."""
    try:
        with explained(path):
            yield
    except NOT_AS_WRITTEN as error:
        missing = isinstance(error, LookupError)  # whose text is no more than a key
        raise damaged(path, "a piece is missing" if missing else first_line(error)) from None


def explain(error: sqlite3.Error | OSError, path: Path) -> NazxError:
    """``error`` of reading or writing ``path`` as one line with a next step."""
    reason = (error.strerror if isinstance(error, OSError) else None) or first_line(error)
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if error.errno in codes if isinstance(error, OSError) else "is full" in reason:
        return NazxError(
            f"the disk is full: session {path.stem} could not be saved",
            "free some space; the next save takes in what is missing",
        )
    if "disk I/O" in reason:
        return NazxError(
            f"the disk fails or is full: session {path.stem} could not be saved or read",
            f"see that {path.parent} has room and can be written; the next save takes in what "
            "is missing",
        )
    if "locked" in reason:
        return NazxError(f"session {path.stem} is in use by another program ({path})", "try again")
    if isinstance(error, OSError) or any(each in reason for each in _NO_ACCESS):
        return NazxError(
            f"cannot use {path}: {reason}", "set NAZX_HOME to a folder that you may write to"
        )
    return damaged(path, reason)


def damaged(path: Path, reason: str) -> NazxError:
    """What to say of a file that is not as it was written."""
    return NazxError(
        f"session {path.stem} is damaged: {reason}",
        f"nazx sessions repair {shlex.quote(path.stem)}, or choose another with --session NAME",
    )
