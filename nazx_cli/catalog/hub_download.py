"""Downloads from the Hub: resumable files of known size and hash, progress, and what can go wrong
as one line with a next step.
"""

from __future__ import annotations

import errno
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from nazx_cli.checkpoint.atomic import DiskFullError, explain, sha256_of
from nazx_cli.errors import ModelUnavailableError, first_line

# The client moved from requests to httpx; its connection errors come from one of these.
_HTTP_LIBRARIES = {"httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3"}


class HubUnreachableError(ModelUnavailableError):
    """No Hub answered."""


@contextmanager
def explaining(errors: Any, repo: str, revision: str | None, cache: Path) -> Iterator[None]:
    """Turn the client's errors about ``repo`` into ``ModelUnavailableError``.

    ``errors`` is the client's own module of exceptions; ``cache`` is where it writes to.
    """
    try:
        yield
    except ModelUnavailableError:
        raise
    except Exception as error:  # which types there are depends on the client's version
        found = _explained(error, errors, repo, revision, cache)
        if found is None:
            raise
        raise found from None


def _explained(
    error: Exception, errors: Any, repo: str, revision: str | None, cache: Path
) -> ModelUnavailableError | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return ModelUnavailableError(
            f"{repo} is gated: the Hub refused access",
            "accept its licence on its Hub page and set HF_TOKEN to a token of yours",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelUnavailableError(
            f"{repo} has no revision {revision!r}", "name a branch, tag or commit that it has"
        )
    if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        return ModelUnavailableError(
            f"the Hub has no model {repo}, or it is private",
            "check the name; for a private model set HF_TOKEN to a token of yours",
        )
    if isinstance(error, errors.HFValidationError):
        return ModelUnavailableError(
            f"{repo!r} is no name of a Hub repository", "names look like org/repo"
        )
    return _lost(error, repo, status, cache)


def _lost(
    error: Exception, repo: str, status: int | None, cache: Path
) -> ModelUnavailableError | None:
    """Errors on the way: of the server, the connection, the disk."""
    again = "try again: what came down is kept, and the download goes on from there"
    if isinstance(error, OSError) and error.errno in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EACCES,
    ):
        return explain(error, cache)
    text = first_line(error)[:200]
    if status is not None:
        return ModelUnavailableError(f"the Hub answered {status} for {repo}", "try again later")
    if "onsistency check" in text:
        return ModelUnavailableError(
            f"a file of {repo} came down with the wrong size: {text}", "try again"
        )
    library = type(error).__module__.split(".")[0]
    if isinstance(error, OSError) or library in _HTTP_LIBRARIES:
        return HubUnreachableError(f"the connection to the Hub was lost ({repo}): {text}", again)
    # The transfer library that fetches large files reports every failure as RuntimeError.
    if type(error) is RuntimeError:
        return ModelUnavailableError(f"{repo} could not be downloaded: {text}", again)
    return None


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


Fetch = Callable[[BinaryIO, int], None]
"""Called with a file opened at its end, and the bytes that it holds: appends the rest."""

_ROOM = 16 << 20  # left free, so that the disk is not filled to the last byte


def complete_file(path: Path, lock: Path, nbytes: int, sha256: str, fetch: Fetch) -> bool:
    """Make ``path`` appear with its ``nbytes`` bytes of hash ``sha256``.

    One process at a time works on it, the others wait for ``lock``. False where the bytes that
    came down are not those: they are removed then. Whatever else goes wrong leaves what came
    down for the next run.
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
        if partial.stat().st_size != nbytes or sha256_of(partial) != sha256:
            partial.unlink()
            return False
        partial.chmod(0o644)
        partial.replace(path)
    return True


def _check_room(folder: Path, nbytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if nbytes and free < nbytes + _ROOM:
        raise DiskFullError(
            f"there is no room in {folder}: {nbytes:,} bytes are needed, {free:,} are free",
            "free some space, or set NAZX_HOME and HF_HOME to folders on a larger disk",
        )
