"""Which process has a session open: a lock that the system holds.

The system drops a lock when its process ends, however it ends, so none is ever stale. The
``filelock`` library empties the file of whoever holds it, and could not tell who that is.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

_PATIENCE = 0.25  # seconds: others may hold the lock for a moment to see whether it is held
_PAUSE = 0.01
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # the file is emptied: it must be ours
_BEYOND = 1 << 16  # Windows locks bytes against reading too: one that holds no number


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
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o600)
            try:
                if _locked(descriptor) and _is_at(descriptor, self._path):
                    os.ftruncate(descriptor, 0)
                    with suppress(OSError):  # a full disk: then it cannot be told who holds it
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
