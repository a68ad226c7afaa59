"""One session on disk, this process's alone from ``Store.open`` to ``close``; what a list says
of it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from nazx_cli.checkpoint.atomic import sha256_of
from nazx_cli.errors import NazxError, UsageError
from nazx_cli.session.saving.database import (
    ProcessLock,
    checked_version,
    connect,
    create,
    damage_explained,
    delete,
    explained,
    purge,
    read_meta,
)

if TYPE_CHECKING:
    from nazx_cli.session.state import Snapshot, State
    from nazx_cli.tokenizer import Tokenizer


Claim = Callable[[str], tuple[Path, ProcessLock]]
"""Path and lock of a session of that name, which must be new."""


@dataclass(frozen=True)
class ModelTag:
    """Which model a session belongs to: the name it was loaded by (revision included) and the
    SHA-256 of its ``tokenizer.json`` and ``config.json``."""

    name: str
    tokenizer_sha256: str
    config_sha256: str

    @classmethod
    def of(cls, folder: Path, name: str) -> ModelTag:
        """The tag of the checkpoint in ``folder``; ``OSError`` where it has lost its files."""
        return cls(name, sha256_of(folder / "tokenizer.json"), sha256_of(folder / "config.json"))

    def difference(self, other: ModelTag) -> str:
        """What keeps ``other`` from standing in for this model, in a few words; empty: nothing."""
        if self.tokenizer_sha256 != other.tokenizer_sha256:
            return "its tokenizer differs"
        if self.config_sha256 != other.config_sha256:
            return "its configuration differs"
        return ""


@dataclass(frozen=True)
class SessionInfo:
    """A session in a list.

    ``turns``, ``documents`` and ``tokens`` (of the documents) are those of its present branch;
    ``saved`` is aware of its time zone, ``nbytes`` the file's size, ``open_by`` the process that
    has it open (None: nobody). ``problem`` says why the file cannot be read; where it does, all
    but name, time and size are empty.
    """

    name: str
    model: str
    turns: int
    documents: int
    tokens: int
    saved: datetime
    nbytes: int
    open_by: int | None = None
    problem: str = ""


def read_info(path: Path, open_by: int | None) -> SessionInfo | None:
    """What a list says of the session file ``path``; None where nothing was saved there yet."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    try:
        with damage_explained(path), closing(connect(path)) as database:
            if not checked_version(database, path) or "saved" not in (meta := read_meta(database)):
                return None
            return SessionInfo(
                path.stem,
                str(meta["model"]["name"]),
                int(meta["turns"]),
                int(meta["documents"]),
                int(meta["tokens"]),
                datetime.fromisoformat(meta["saved"]).astimezone(timezone.utc),
                stat.st_size,
                open_by,
            )
    except NazxError as error:
        changed = datetime.fromtimestamp(stat.st_mtime, timezone.utc)
        return SessionInfo(path.stem, "", 0, 0, 0, changed, stat.st_size, open_by, error.message)


class SessionFile:
    """A session's file; ``Store.open`` makes them.

    Everything raises ``NazxError`` in one line where the file cannot be read or written.
    """

    def __init__(self, path: Path, lock: ProcessLock, claim: Claim) -> None:
        self.path = path
        self._lock = lock
        self._claim = claim
        self._database: sqlite3.Connection | None = None
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

    def load(
        self, tokenizer: Tokenizer, model: ModelTag, *, force: bool = False
    ) -> Snapshot | None:
        """What was saved, for use with ``model`` and its ``tokenizer``; None: nothing yet.

        Raises ``UsageError`` where it was saved with another model. ``force`` takes it all the
        same, and tokenizes the documents again where the tokenizer differs.
        """
        from nazx_cli.session.saving.records import restore

        if self._database is None:
            return None
        with damage_explained(self.path):
            meta = read_meta(self._database)
            if "saved" not in meta:
                return None
            before = ModelTag(**meta["model"])
            difference = before.difference(model)
            if difference and not force:
                raise _other_model(self.name, before, model, difference)
            same = before.tokenizer_sha256 == model.tokenizer_sha256
            return restore(self._database, meta, None if same else tokenizer)

    def save(
        self, branches: Mapping[str, State], branch: str, watched: Iterable[str], model: ModelTag
    ) -> None:
        """Save all of this; only what the file does not hold yet is written.

        On return it is on the disk; after an error the file holds what it held before.
        """
        from nazx_cli.session.saving.records import save

        with explained(self.path):
            if self._database is None or not self.path.exists():
                self._disconnect()  # from a file that somebody deleted
                self._database = create(self.path)
            save(self._database, branches, branch, watched, model)

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
                    purge(self._database)
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
        self._database = None


def _other_model(name: str, before: ModelTag, now: ModelTag, difference: str) -> UsageError:
    if before.name == now.name:
        return UsageError(
            f"session {name} was saved before {now.name} changed: {difference}",
            "add --force to use it with the model as it is now",
        )
    return UsageError(
        f"session {name} was saved with {before.name}; {now.name} is another model: {difference}",
        f"use -m {before.name}, or add --force to use it with {now.name}",
    )
