"""The file beneath a session: which process holds it, its tables, and its errors in plain words.

The system drops a lock when its process ends, however it ends, so none is ever stale. The
``filelock`` library empties the file of whoever holds it, and could not tell who that is.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from nazx_cli.errors import NazxError, first_line
from nazx_cli.reading.content import loads

APPLICATION = 0x4E417A58  # "NAzX": tells a session from any other SQLite file
_WAIT = 5.0  # seconds for another process that lists sessions, or writes the one listed
_PATIENCE = 0.25  # seconds: others may hold the lock for a moment to see whether it is held
_PAUSE = 0.01
_BEYOND = 1 << 16  # Windows locks bytes against reading too: one that holds no number
_NOT_AS_WRITTEN = (LookupError, ValueError, TypeError, AttributeError, OverflowError, zlib.error)


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


def read_meta(database: sqlite3.Connection) -> dict[str, Any]:
    """What the file says of the session as a whole; without ``saved``: nothing was saved yet."""
    rows = database.execute("SELECT key, value FROM meta")
    return {key: loads(value) for key, value in rows}


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
    except _NOT_AS_WRITTEN as error:
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


class LockHeldError(Exception):
    """Another process, or this one, holds the lock; ``pid`` is 0 where that cannot be told."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"held by process {pid}")
        self.pid = pid


class ProcessLock:
    """The lock file at ``path``, held from here to ``release()``.

    Raises ``LockHeldError`` where it is held, ``OSError`` where it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = self._acquire(time.monotonic() + _PATIENCE)

    def _acquire(self, deadline: float) -> int:
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                if _locked(descriptor) and _is_at(descriptor, self._path):
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, str(os.getpid()).encode())
                    return descriptor
                if time.monotonic() > deadline:
                    raise LockHeldError(_pid_in(descriptor))
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
            time.sleep(_PAUSE)

    def release(self) -> None:
        """Let others have it; the file goes."""
        if self._descriptor < 0:
            return
        if sys.platform != "win32":
            # While it is held: whoever waits for this very file sees that it is gone.
            with suppress(OSError):
                self._path.unlink()
        os.close(self._descriptor)
        self._descriptor = -1
        if sys.platform == "win32":  # no open file can go there, so nobody's lock is lost
            with suppress(OSError):
                self._path.unlink()


def holder(path: Path) -> int | None:
    """The process that holds the lock file at ``path``, 0 if that cannot be told; None: nobody."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        if _locked(descriptor, shared=True):
            return None
        deadline = time.monotonic() + _PATIENCE
        while not (pid := _pid_in(descriptor)) and time.monotonic() < deadline:
            time.sleep(_PAUSE)
        return pid
    finally:
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one at ``path``."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _pid_in(descriptor: int) -> int:
    os.lseek(descriptor, 0, os.SEEK_SET)
    digits = os.read(descriptor, 20)
    return int(digits) if digits.isdigit() else 0


def _locked(descriptor: int, shared: bool = False) -> bool:
    """Lock the open file if nobody has; closing it unlocks it."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, _BEYOND, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        os.lseek(descriptor, 0, os.SEEK_SET)
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
