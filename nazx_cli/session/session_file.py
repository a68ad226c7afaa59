"""One session on disk, this process's alone from ``Store.open`` to ``close``."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from nazx_cli.session.database import create, delete, explained
from nazx_cli.session.lock import ProcessLock
from nazx_cli.session.restoring import read_info, restore
from nazx_cli.session.saved import ModelTag, Saved, SessionInfo
from nazx_cli.session.saving import Saver

if TYPE_CHECKING:
    from nazx_cli.session.state import State
    from nazx_cli.tokenizer import Tokenizer

Claim = Callable[[str], tuple[Path, ProcessLock]]
"""Path and lock of a session of that name, which must be new."""


class SessionFile:
    """A session's file; ``Store.open`` makes them.

    Everything raises ``NazxError`` in one line where the file cannot be read or written.
    """

    def __init__(self, path: Path, lock: ProcessLock, claim: Claim) -> None:
        self.path = path
        self._lock = lock
        self._claim = claim
        self._database: sqlite3.Connection | None = None
        self._saver: Saver | None = None
        if path.exists():
            with explained(path):
                self._database = create(path)

    def __enter__(self) -> SessionFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """The session's name."""
        return self.path.stem

    @property
    def info(self) -> SessionInfo:
        """What a list says of this session; its model is empty before the first save."""
        info = read_info(self.path, os.getpid()) if self._database else None
        return info or SessionInfo(
            self.name, "", 0, 0, 0, datetime.now(timezone.utc), 0, os.getpid()
        )

    def load(self, tokenizer: Tokenizer, model: ModelTag, *, force: bool = False) -> Saved | None:
        """What was saved, for use with ``model`` and its ``tokenizer``; None: nothing yet.

        Raises ``UsageError`` where it was saved with another model. ``force`` takes it all the
        same, and tokenizes the documents again where the tokenizer differs.
        """
        if self._database is None:
            return None
        return restore(self._database, self.path, tokenizer, model, force)

    def save(
        self, branches: Mapping[str, State], branch: str, watched: Iterable[str], model: ModelTag
    ) -> None:
        """Save all of this; only what the file does not hold yet is written.

        On return it is on the disk; after an error the file holds what it held before.
        """
        with explained(self.path):
            if self._database is None or not self.path.exists():
                self._disconnect()  # from a file that somebody deleted
                self._database = create(self.path)
            if self._saver is None:
                self._saver = Saver(self._database)
            self._saver.save(branches, branch, watched, model)

    def save_as(self, name: str) -> SessionFile:
        """A copy of what was saved last, as the new session ``name``; this one stays open.

        Raises ``UsageError`` where there is a session of that name.
        """
        path, lock = self._claim(name)
        try:
            if self._database is not None:
                with explained(path):
                    self._copy(path)
            return SessionFile(path, lock, self._claim)
        except BaseException:
            lock.release()
            raise

    def close(self) -> None:
        """Let other processes have the session; what no branch needs any more is removed."""
        try:
            if self._database is not None and self.path.exists():
                # It can be done at the next end as well.
                with suppress(sqlite3.Error):
                    Saver(self._database).purge()
            self._disconnect()
        finally:
            self._lock.release()

    def _copy(self, path: Path) -> None:
        assert self._database is not None
        try:
            with closing(create(path)) as copy:
                self._database.backup(copy)
        except BaseException:
            delete(path)
            raise

    def _disconnect(self) -> None:
        if self._database is not None:
            self._database.close()
        self._database = self._saver = None
