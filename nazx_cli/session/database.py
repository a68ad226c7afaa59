"""A session's SQLite file: its tables, its format's versions, and its errors in plain words."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from nazx_cli.errors import NazxError, first_line

APPLICATION = 0x4E417A58  # "NAzX": tells a session from any other SQLite file
_WAIT = 5.0  # seconds for another process that lists sessions, or writes the one listed


def _create_tables(database: sqlite3.Connection) -> None:
    """Version 1. Parts and turns are named by their content and never changed."""
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


MIGRATIONS: list[Callable[[sqlite3.Connection], None]] = [_create_tables]
"""Step n makes a file of version n one of version n + 1; an empty file is of version 0."""


def connect(path: Path) -> sqlite3.Connection:
    """Open the file that is there, whatever it is; close the connection after use.

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
        for setting in ("trusted_schema = OFF", "synchronous = EXTRA"):
            database.execute(f"PRAGMA {setting}")
    except BaseException:
        database.close()
        raise
    return database


def create(path: Path) -> sqlite3.Connection:
    """Open a file to keep a session in, made where it is missing, its tables up to date.

    Only who holds the session's lock may call this.
    """
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
    for name in (path.name, f"{path.name}-journal"):
        path.with_name(name).unlink(missing_ok=True)


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
    if not tables and path.stat().st_size:
        raise damaged(path, "most of it is missing")
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


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what can go wrong with the file ``path`` into one line with a next step."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise explain(error, path) from None


def explain(error: sqlite3.Error | OSError, path: Path) -> NazxError:
    """``error`` of reading or writing ``path`` as one line with a next step."""
    reason = (error.strerror if isinstance(error, OSError) else None) or first_line(error)
    if _is_full(error):
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
    if isinstance(error, OSError | sqlite3.OperationalError) and "no such" not in reason:
        return NazxError(
            f"cannot use {path}: {reason}", "set NAZX_HOME to a folder that you may write to"
        )
    return damaged(path, reason)


def damaged(path: Path, reason: str) -> NazxError:
    """What to say of a file that is not as it was written."""
    return NazxError(
        f"session {path.stem} is damaged: {reason}",
        f"move {path} away, or choose another name with --session NAME",
    )


def _is_full(error: sqlite3.Error | OSError) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return "is full" in str(error)
