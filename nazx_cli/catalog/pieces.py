"""Files that come down piece by piece: held to their size, gone on with, and watched."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from nazx_cli.checkpoint.atomic import DiskFullError, has_hash
from nazx_cli.errors import ModelUnavailableError
from nazx_cli.names import OnProgress

_POLL_SECONDS = 0.2
ROOM = 16 << 20
"""Bytes left free, so that the disk is not filled to the last one."""


class Bounded:
    """A file that takes no more than it is to have; ``written`` counts what it was given."""

    def __init__(self, file: BinaryIO, limit: int, what: str) -> None:
        self._file, self._limit, self._what = file, limit, what
        self.written = 0

    def write(self, data: bytes) -> int:
        self.written += len(data)
        if self._file.tell() + len(data) > self._limit:
            raise ModelUnavailableError(
                f"{self._what} does not end after the {self._limit:,} bytes that are listed for it",
                "try again later: what answers may not be the Hub",
            )
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, at: int) -> int:
        return self._file.seek(at)

    def truncate(self) -> int:
        return self._file.truncate()


@contextmanager
def watch_folder(
    folder: Path, total: int, on_progress: OnProgress | None, present: int = 0
) -> Iterator[None]:
    """Call ``on_progress(bytes there, total)`` from a thread while the body runs.

    Bytes there are the ``present`` ones and those that are added to ``folder``.
    """
    if on_progress is None:
        yield
        return
    stop = threading.Event()
    start = folder_size(folder) - present

    def watch() -> None:
        while not stop.wait(_POLL_SECONDS):
            on_progress(min(folder_size(folder) - start, total), total)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()
    on_progress(total, total)


def folder_size(folder: Path) -> int:
    """Bytes of the files in ``folder``, some of which may come and go."""
    size = 0
    for path in folder.glob("*"):
        try:
            size += path.stat().st_size
        except OSError:  # renamed in between
            continue
    return size


def complete_file(
    path: Path, lock: Path, nbytes: int, digest: str, fetch: Callable[[BinaryIO, int], None]
) -> bool:
    """Make ``path`` appear with its ``nbytes`` bytes of hash ``digest``.

    ``fetch`` gets a file opened at its end, and the bytes that it holds: it appends the rest. One
    process at a time works on it, the others wait for ``lock``. False where the bytes that came
    down are not those: they are removed then. Whatever else goes wrong leaves what came down for
    the next run.
    """
    from filelock import FileLock

    lock.parent.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        if path.is_file():
            return True
        partial = path.with_name(f"{path.name}.incomplete")
        with partial.open("ab") as file:
            start = file.tell()
            if start > nbytes:
                start = file.truncate(0)
            _check_room(path.parent, nbytes - start)
            fetch(file, start)
        if partial.stat().st_size != nbytes or not has_hash(partial, digest):
            partial.unlink()
            return False
        partial.chmod(0o644)
        partial.replace(path)
    return True


def _check_room(folder: Path, nbytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if nbytes and free < nbytes + ROOM:
        raise DiskFullError(
            f"there is no room in {folder}: {nbytes:,} bytes are needed, {free:,} are free",
            "free some space, or set NAZX_HOME and HF_HOME to folders on a larger disk",
        )
