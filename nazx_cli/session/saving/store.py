"""The sessions on this machine, a folder with one file each."""

from __future__ import annotations

import os
import re
import unicodedata
from contextlib import ExitStack
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from nazx_cli.errors import NazxError, UsageError
from nazx_cli.session.saving.database import before, delete, explained
from nazx_cli.session.saving.lock import LockHeldError, ProcessLock, holder
from nazx_cli.session.saving.readings import readings_of
from nazx_cli.session.saving.session_file import (
    SessionFile,
    SessionInfo,
    read_conversation,
    read_document,
    read_info,
)

if TYPE_CHECKING:
    from nazx_cli.documents.document import Document
    from nazx_cli.session.saving.conversation import Conversation
    from nazx_cli.session.saving.repair import Repair

SUFFIX = ".nazx"
UNSAVED = "(not saved)"
"""What ``running`` calls a chat that is not saved; no session can be named so."""


class SessionOpenError(NazxError):
    """Another process has the session open."""


_LONGEST = 100  # characters, and twice that in bytes: file systems take 255
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # Windows devices


class Store:
    """The sessions in ``folder``, which need not exist before the first is opened.

    Everything raises ``NazxError`` where the folder cannot be used, and ``UsageError`` for a name
    that no session can have.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Names of all sessions, damaged ones too, without opening any."""
        return [path.stem for path in self._files()]

    def infos(self) -> list[SessionInfo]:
        """All sessions, last saved first; a damaged one with what is wrong with it."""
        found = [read_info(path, holder(_lock_path(path))) for path in self._files()]
        infos = [info for info in found if info is not None]
        return sorted(infos, key=lambda info: (info.saved, info.name), reverse=True)

    def latest(self) -> str | None:
        """The session that was saved last, damaged ones left out; None where there is none."""
        return next((info.name for info in self.infos() if not info.problem), None)

    def running(self) -> list[tuple[str, int]]:
        """Sessions that a process has open now, also those not saved, and which process."""
        locks = [(path.name[1 : -len(".lock")], path) for path in self.folder.glob(".*.lock")]
        pids = [
            (UNSAVED if name.startswith(UNSAVED) else name, holder(path)) for name, path in locks
        ]
        return sorted((name, pid) for name, pid in pids if pid is not None)

    def be_seen(self) -> ProcessLock | None:
        """Have ``running`` tell of this process, which saves nothing, until the lock is released.

        None where that cannot be had: nobody's chat should end for it.
        """
        try:
            return self._try_lock(self.folder / f"{UNSAVED}{os.getpid()}{SUFFIX}")
        except (NazxError, LockHeldError):
            return None

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
        Raises ``UsageError`` where there is none otherwise, ``SessionOpenError`` where another
        process has it open, and ``NazxError`` where its file is damaged or a newer NazX wrote it.
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

    def open_new(self, name: str) -> SessionFile:
        """A session ``name`` that is not there yet; errors as ``open``'s, and ``UsageError`` where
        there is one."""
        path, lock = self._new(name)
        return SessionFile(path, lock, self._new)

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

    def require(self, name: str) -> None:
        """``UsageError`` where there is no session ``name``."""
        self._require(self._path(name))

    def remove(self, *names: str) -> None:
        """Delete sessions, all or none where one is not there or somebody has it open."""
        paths = [self._path(name) for name in names]
        with ExitStack() as held:
            for path in paths:
                self._require(path)
                held.callback(self._lock(path).release)
            for path in paths:
                with explained(path):
                    delete(before(path))
                    delete(path)
                    readings_of(path).unlink(missing_ok=True)

    def repair(self, name: str) -> Repair:
        """Make the session ``name``, which nobody may have open, one that opens again.

        A file that is not whole is kept beside what could be read of it, as it was. Raises
        ``NazxError`` where nothing could.
        """
        from nazx_cli.session.saving.repair import repair

        path = self._path(name)
        self._require(path)
        lock = self._lock(path)
        try:
            return repair(path)
        finally:
            lock.release()

    def read(self, name: str) -> Conversation:
        """What was said in the session ``name``, also while somebody has it open."""
        path = self._path(name)
        self._require(path)
        return read_conversation(path, holder(_lock_path(path)))

    def document(self, name: str, number: int) -> Document | None:
        """The document of that number, from 1, in the session ``name``, also while somebody has it
        open; None where it has none."""
        path = self._path(name)
        self._require(path)
        return read_document(path, holder(_lock_path(path)), number)

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
            raise SessionOpenError(
                f"session {path.stem} is open in another process (pid {error.pid or 'unknown'})",
                "close it there, or name another session",
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
            f"did you mean {near[0]}?" if near else "list them with: nazx sessions",
        )


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
