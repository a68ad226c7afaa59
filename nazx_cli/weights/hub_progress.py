"""Progress of a download, seen from the size of the folder that it goes to.

The client's own progress hooks differ from version to version; bytes on the disk do not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_POLL_SECONDS = 0.2


@contextmanager
def watch_folder(
    folder: Path, total: int, on_progress: Callable[[int, int], None] | None, present: int = 0
) -> Iterator[None]:
    """Call ``on_progress(bytes there, total)`` from a thread while the body runs.

    Bytes there are the ``present`` ones and those that are added to ``folder``.
    """
    if on_progress is None:
        yield
        return
    stop = threading.Event()
    start = _size(folder) - present

    def watch() -> None:
        while not stop.wait(_POLL_SECONDS):
            on_progress(min(_size(folder) - start, total), total)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()
    on_progress(total, total)


def _size(folder: Path) -> int:
    size = 0
    for path in folder.glob("*"):
        try:
            size += path.stat().st_size
        except OSError:  # renamed in between
            continue
    return size
