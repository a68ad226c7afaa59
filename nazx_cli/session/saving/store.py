"""The sessions on this machine, a folder with one file each, and keeping the open one saved."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from nazx_cli.errors import NazxError, UsageError
from nazx_cli.session.saving.database import LockHeldError, ProcessLock, delete, explained, holder
from nazx_cli.session.saving.session_file import SessionFile, SessionInfo, read_info

if TYPE_CHECKING:
    from nazx_cli.session.saving.session_file import ModelTag
    from nazx_cli.session.session import Session
    from nazx_cli.session.state import Snapshot

SUFFIX = ".nazx"
_LONGEST = 100  # characters, and twice that in bytes: file systems take 255
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # Windows devices


class Store:
    """The sessions in ``folder``, which need not exist before the first is opened.

    Everything raises ``NazxError`` where the folder cannot be used, and ``UsageError`` for a name
    that no session can have.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def infos(self) -> list[SessionInfo]:
        """All sessions, last saved first; a damaged one with what is wrong with it."""
        found = [read_info(path, holder(_lock_path(path))) for path in self._files()]
        infos = [info for info in found if info is not None]
        return sorted(infos, key=lambda info: (info.saved, info.name), reverse=True)

    def latest(self) -> str | None:
        """The session that was saved last, damaged ones left out; None where there is none."""
        return next((info.name for info in self.infos() if not info.problem), None)

    def running(self) -> list[tuple[str, int]]:
        """Sessions that a process has open now, also those not saved yet, and which process."""
        names = [path.name[1 : -len(".lock")] for path in self.folder.glob(".*.lock")]
        pids = [(name, holder(self.folder / f".{name}.lock")) for name in names]
        return sorted((name, pid) for name, pid in pids if pid is not None)

    def fresh_name(self) -> str:
        """A name for a new session, after the present minute: ``2026-11-22-0640``."""
        stem = datetime.now().strftime("%Y-%m-%d-%H%M")
        taken = {path.stem for path in self._files()} | {name for name, _ in self.running()}
        name, number = stem, 1
        while name in taken:
            number += 1
            name = f"{stem}-{number}"
        return name

    def open(self, name: str, *, create: bool) -> SessionFile:
        """The session ``name``, this process's alone until it is closed.

        ``create`` makes one where there is none; its file appears with the first ``save``.
        Raises ``UsageError`` where there is none otherwise, and ``NazxError`` where another
        process has it open, its file is damaged, or a newer NazX wrote it.
        """
        path = self._path(name)
        if not create:
            self._require(path)
        lock = self._lock(path)
        try:
            return SessionFile(path, lock, self._new)
        except BaseException:
            lock.release()
            raise

    def open_fresh(self) -> SessionFile:
        """A new session under a fresh name, also where others open theirs at the same moment."""
        while True:
            path = self._path(self.fresh_name())
            try:
                lock = self._try_lock(path)
            except LockHeldError:
                continue
            if not path.exists():
                return SessionFile(path, lock, self._new)
            lock.release()

    def remove(self, name: str) -> None:
        """Delete the session ``name``, which nobody may have open."""
        path = self._path(name)
        self._require(path)
        lock = self._lock(path)
        try:
            with explained(path):
                delete(path)
        finally:
            lock.release()

    def _new(self, name: str) -> tuple[Path, ProcessLock]:
        """Path and lock of a session that is not there yet."""
        path = self._path(name)
        lock = self._lock(path)
        if path.exists():
            lock.release()
            raise UsageError(f"there is a session named {path.stem} already", "choose another name")
        return path, lock

    def _lock(self, path: Path) -> ProcessLock:
        try:
            return self._try_lock(path)
        except LockHeldError as error:
            if error.pid == os.getpid():
                raise UsageError(
                    f"session {path.stem} is open here already", "choose another name"
                ) from None
            raise NazxError(
                f"session {path.stem} is open in another process (pid {error.pid or 'unknown'})",
                "close it there, or choose another with --session NAME",
            ) from None

    def _try_lock(self, path: Path) -> ProcessLock:
        with explained(path):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            return ProcessLock(_lock_path(path))

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"[!.]*{SUFFIX}"))

    def _path(self, name: str) -> Path:
        return self.folder / f"{checked_name(name)}{SUFFIX}"

    def _require(self, path: Path) -> None:
        if path.exists():
            return
        near = get_close_matches(path.stem, [other.stem for other in self._files()], n=1)
        raise UsageError(
            f"there is no session named {path.stem}",
            f"did you mean {near[0]}?" if near else "list them with /sessions",
        )


class Autosave:
    """Saves to ``file`` (None: to nothing, until ``save_now`` or ``save_as``) what has changed.

    ``tell`` gets a failure once, until a save succeeds again.
    """

    def __init__(
        self, store: Store, file: SessionFile | None, tell: Callable[[NazxError], None]
    ) -> None:
        self.store = store
        self.file = file
        self._tell = tell
        self._last: Snapshot | None = None
        self._failed = False

    @property
    def name(self) -> str | None:
        """The session's name; None where nothing is saved."""
        return self.file.name if self.file is not None else None

    def mark(self, session: Session) -> None:
        """Take the session for saved as it is: there is nothing in it to be lost yet."""
        self._last = session.snapshot()

    def save(self, session: Session, model: ModelTag) -> None:
        """Save if anything changed; a failure is told and does not stop the chat."""
        snapshot = session.snapshot()
        if self.file is None or snapshot == self._last:
            return
        try:
            self._save(snapshot, model)
        except NazxError as error:
            if not self._failed:
                self._tell(error)
            self._failed = True

    def save_now(self, session: Session, model: ModelTag) -> None:
        """Save, changed or not; raises where that fails."""
        if self.file is None:
            self.file = self.store.open_fresh()
        self._save(session.snapshot(), model)

    def save_as(self, name: str, session: Session, model: ModelTag) -> None:
        """Go on in a new session called ``name``; the one that was open stays as it is."""
        if self.file is None:
            self.file = self.store.open(name, create=True)
        else:
            old = self.file
            self.file = old.save_as(name)
            old.close()
        self._save(session.snapshot(), model)

    def change(self, file: SessionFile, session: Session) -> None:
        """Leave the open session for another one, which ``session`` was read from."""
        self.close()
        self.file, self._failed = file, False
        self.mark(session)

    def close(self) -> None:
        """Let go of the session."""
        if self.file is not None:
            self.file.close()
            self.file = None

    def _save(self, snapshot: Snapshot, model: ModelTag) -> None:
        assert self.file is not None
        self.file.save(*snapshot, model)
        self._last, self._failed = snapshot, False


def checked_name(name: str) -> str:
    """``name`` as a session is stored under; ``UsageError`` where none can be named so."""
    name = unicodedata.normalize("NFC", name).removesuffix(SUFFIX)
    if not name:
        raise UsageError("a session needs a name", "as in: --session work")
    strange = next((c for c in name if not (c.isalnum() or c in " ._-")), None)
    if strange is not None:
        problem = f"has {strange!r} in it"
    elif len(name) > _LONGEST or len(name.encode()) > 2 * _LONGEST:
        problem = "is too long"
    elif name[0] in ". " or name[-1] in ". ":
        problem = "begins or ends with a dot or a space"
    elif _RESERVED.fullmatch(name):
        problem = "is reserved by Windows"
    else:
        return name
    raise UsageError(
        f"{name[:_LONGEST]!r} cannot name a session: it {problem}",
        f"use letters, digits, spaces and . _ -, at most {_LONGEST} of them",
    )


def _lock_path(path: Path) -> Path:
    return path.with_name(f".{path.stem}.lock")
