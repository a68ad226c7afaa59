"""Folders that appear whole or not at all, one process at a time making them; hashes of files."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nazx_cli.errors import ModelUnavailableError


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's contents, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def has_hash(content: Path | bytes, digest: str) -> bool:
    """Whether a file, or what is to be one, has the hash that the Hub knows it by: SHA-256, or
    for 40 digits git's."""
    if len(digest) != 40 and isinstance(content, Path):
        return sha256_of(content) == digest
    data = content.read_bytes() if isinstance(content, Path) else content
    if len(digest) != 40:
        return hashlib.sha256(data).hexdigest() == digest
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == digest


class DiskFullError(ModelUnavailableError):
    """There is no room left to write to."""


@contextmanager
def building(
    target: Path, on_wait: Callable[[], None] | None = None, *, keep_lock: bool = True
) -> Iterator[Path]:
    """A scratch folder beside ``target``, held by this process alone and removed at the end.

    Put a finished folder in place with ``put_in_place``. Other processes that build the same
    target wait (``on_wait`` is called first), so look again whether it is there. What a killed
    process left behind is removed: holding the lock proves that nobody is using it. The lock's
    file stays, unless ``target`` lies in a folder of the person's where it would be litter.
    """
    from filelock import FileLock, Timeout

    with explained(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.parent / f".{target.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if on_wait:
                on_wait()
            lock.acquire()
    scratch = None
    try:
        for stale in target.parent.glob(f".{target.name}.*.partial"):
            shutil.rmtree(stale, ignore_errors=True)
        with explained(target.parent):
            name = tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
            scratch = Path(name)
        yield scratch
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        lock.release()
        if not keep_lock:
            with suppress(OSError):
                Path(lock.lock_file).unlink()


def write_whole(path: Path, text: str) -> None:
    """Write a small file whole or not at all; ``OSError`` where that cannot be, and nothing is
    left beside it then."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError:
        with suppress(OSError):
            scratch.unlink()
        raise


def put_in_place(finished: Path, target: Path, scratch: Path) -> None:
    """Make the folder ``finished`` appear as ``target``; an older ``target`` goes to ``scratch``.

    All three lie on one file system. Everything is on the disk before the name is.
    """
    with explained(target):
        finished.chmod(0o755 & ~_umask())
        for path in [*finished.iterdir(), finished]:
            _sync(path)
        if target.exists():
            target.rename(scratch / "replaced")
        finished.rename(target)
        _sync(target.parent)


@contextmanager
def explained(place: Path) -> Iterator[None]:
    """Turn an ``OSError`` of writing to ``place`` into one line with a next step."""
    try:
        yield
    except OSError as error:
        raise explain(error, place) from None


def check_writable(folder: Path) -> None:
    """Raise what writing to ``folder``, which may be there or not, would raise: before much is
    computed for it. Nothing is left behind."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    with explained(folder), tempfile.TemporaryDirectory(prefix=".nazx-", dir=there):
        pass


def explain(error: OSError, place: Path) -> ModelUnavailableError:
    """``error`` of writing to ``place`` as one line with a next step."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(
            f"the disk is full: {place} could not be written",
            "free some space, or set NAZX_HOME and HF_HOME to folders on a larger disk",
        )
    if error.errno == errno.EFBIG:
        return DiskFullError(
            f"the disk is full for a file of this size: {place} could not be written",
            "set NAZX_HOME and HF_HOME to folders on a disk that takes large files",
        )
    return ModelUnavailableError(
        f"cannot write to {place}: {error.strerror or error}",
        "name a folder that you may write to: with --out, or NAZX_HOME for what NazX keeps",
    )


def _sync(path: Path) -> None:
    """Have the system write ``path`` out; folders cannot be synced on Windows."""
    if path.is_dir() and os.name == "nt":
        return
    # Hard links to files that somebody else owns may be open for reading only.
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
