"""One session on disk, this process's alone from ``Store.open`` to ``close``; what a list says
of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from nazx_cli.checkpoint.atomic import sha256_of
from nazx_cli.documents.content import made
from nazx_cli.errors import NazxError, UsageError
from nazx_cli.session.saving.database import (
    before,
    checked_version,
    connect,
    create,
    damage_explained,
    delete,
    explained,
    keep_before,
    purge,
    read_meta,
    require_file,
)
from nazx_cli.session.saving.lock import ProcessLock
from nazx_cli.session.saving.readings import load_readings, save_readings

if TYPE_CHECKING:
    from torch import Tensor

    from nazx_cli.documents.document import Document
    from nazx_cli.session.saving.conversation import Conversation
    from nazx_cli.session.state import Snapshot, State
    from nazx_cli.tokenizer import Tokenizer

_NAMED = 5  # documents that are named one by one

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
        status = path.lstat()
    except OSError:
        return None
    try:
        with _reading(path, open_by) as database:
            if not checked_version(database, path) or (meta := read_meta(database)) is None:
                return None
            return info_of(path, meta, status.st_size, open_by)
    except NazxError as error:
        changed = datetime.fromtimestamp(status.st_mtime, timezone.utc)
        return SessionInfo(path.stem, "", 0, 0, 0, changed, status.st_size, open_by, error.message)


def info_of(
    path: Path, meta: Mapping[str, Any], nbytes: int = 0, open_by: int | None = None
) -> SessionInfo:
    """What a list says of the session file ``path`` whose ``meta`` this is.

    ``ValueError``, ``KeyError`` and the like for what is damaged.
    """
    return SessionInfo(
        path.stem,
        _tag(meta).name,
        int(meta["turns"]),
        int(meta["documents"]),
        int(meta["tokens"]),
        datetime.fromisoformat(meta["saved"]).astimezone(timezone.utc),
        nbytes,
        open_by,
    )


def read_conversation(path: Path, open_by: int | None) -> Conversation:
    """What was said in the session file ``path``; ``NazxError`` where it cannot be read."""
    from nazx_cli.session.saving.conversation import conversation_of

    with _reading(path, open_by) as database:
        if not checked_version(database, path) or (meta := read_meta(database)) is None:
            raise NazxError(f"nothing is saved in session {path.stem} yet", "nazx sessions")
        return conversation_of(database, meta, _tag(meta).name)


def read_document(path: Path, open_by: int | None, number: int) -> Document | None:
    """The document of that number, from 1, in the session file ``path``; None where it has none.
    ``NazxError`` where the file cannot be read."""
    from nazx_cli.session.saving.conversation import document_in

    with _reading(path, open_by) as database:
        if not checked_version(database, path) or (meta := read_meta(database)) is None:
            return None
        return document_in(database, meta, number)


@contextmanager
def _reading(path: Path, open_by: int | None) -> Iterator[sqlite3.Connection]:
    """The file as it is at one moment, whoever has it open; nothing is written to it."""
    with damage_explained(path):
        require_file(path)
        if open_by is None:
            keep_before(path)
        with closing(connect(path)) as database:
            database.execute("BEGIN")
            yield database


def _tag(meta: Mapping[str, Any]) -> ModelTag:
    """The model that a session was saved with."""
    return made(ModelTag, meta["model"])


class SessionFile:
    """A session's file; ``Store.open`` makes them.

    Everything raises ``NazxError`` in one line where the file cannot be read or written.
    """

    def __init__(self, path: Path, lock: ProcessLock, claim: Claim) -> None:
        self.path = path
        self._lock = lock
        self._claim = claim
        self._database: sqlite3.Connection | None = None
        self.gone: Mapping[str, str] = {}
        """Names of documents that the index had no longer when the session was loaded, by key."""
        self._is_whole = False  # known to be: else nothing may be removed from it
        with damage_explained(path):
            require_file(path)
            if path.exists():
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
    def model(self) -> str:
        """Name of the model that the session was saved with; empty before the first save."""
        if self._database is None:
            return ""
        with damage_explained(self.path):
            meta = read_meta(self._database)
            return _tag(meta).name if meta is not None else ""

    @property
    def version(self) -> str | None:
        """Names what is saved now, as no other save does; None: nothing is."""
        if self._database is None:
            return None
        with damage_explained(self.path):
            meta = read_meta(self._database)
            return None if meta is None else f"{meta['saved']} {meta['states']}"

    @property
    def gone_note(self) -> str:
        """What to say of those that are ``gone``; empty where none is."""
        names = list(self.gone.values())
        if not names:
            return ""
        more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
        shown = ", ".join(names[:_NAMED])
        return f"not in the index any more, so left out: {shown}{more}; read them again to go on"

    @property
    def listed(self) -> tuple[str, ...]:
        """The keys of the documents of the present branch, as they are saved: by these others
        number them."""
        from nazx_cli.session.saving.records import read_branches

        if self._database is None:
            return ()
        with damage_explained(self.path):
            meta = read_meta(self._database)
            if meta is None:
                return ()
            return tuple(read_branches(self._database, meta)[meta["branch"]]["parts"])

    def load(
        self, tokenizer: Tokenizer, model: ModelTag, *, force: bool = False
    ) -> Snapshot | None:
        """What was saved, for use with ``model`` and its ``tokenizer``; None: nothing yet.

        Raises ``UsageError`` where it was saved with another model. ``force`` takes it all the
        same, and tokenizes the documents again where the tokenizer differs.
        """
        from nazx_cli.session.saving.records import check_ids, restore

        if self._database is None:
            return None
        with damage_explained(self.path):
            meta = read_meta(self._database)
            if meta is None:
                return None
            info_of(self.path, meta)
            saved = _tag(meta)
            difference = saved.difference(model)
        if difference and not force:
            raise _other_model(self.name, saved, model, difference)
        same = saved.tokenizer_sha256 == model.tokenizer_sha256
        with damage_explained(self.path):
            found, self.gone = restore(self._database, meta, tokenizer, again=not same)
            check_ids(found.branches.values(), tokenizer.vocab_size)
        self._settle()
        return found

    def save(
        self, branches: Mapping[str, State], branch: str, watched: Iterable[str], model: ModelTag
    ) -> None:
        """Save all of this; only what the file does not hold yet is written.

        On return it is on the disk; after an error the file holds what it held before.
        """
        from nazx_cli.session.saving.records import restore, save

        with damage_explained(self.path):
            if self._database is None or not self.path.exists():
                self._disconnect()  # from a file that somebody deleted
                self._database = create(self.path)
            elif not self._is_whole and (meta := read_meta(self._database)) is not None:
                info_of(self.path, meta)  # a damaged file is not written to
                restore(self._database, meta)
            save(self._database, branches, branch, watched, model)
            self._settle()

    def readings(self) -> dict[str, Tensor]:
        """What a far memory had read of its documents when it was saved."""
        return load_readings(self.path)

    def save_readings(self, readings: Mapping[str, Tensor]) -> None:
        """Save what a far memory has read of its documents, if any of it is saved at all."""
        if self.path.exists():
            save_readings(self.path, readings)

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
            if self._database is not None and self._is_whole and self.path.exists():
                # It can be done at the next end as well.
                with suppress(sqlite3.Error):
                    purge(self._database)
            self._disconnect()
        finally:
            self._lock.release()

    def _settle(self) -> None:
        """All of it was read or written: nothing that is in it is needed besides that."""
        self._is_whole = True
        delete(before(self.path))

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
        f"use -m {quote(before.name)}, or add --force to use it with {now.name}",
    )
