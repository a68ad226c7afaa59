"""Reading one file as a document: the table of readers, and what turns bytes into text."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from nazx_cli.documents import docx, epub, html, pdf, text
from nazx_cli.documents.document import HEAD, Advance, Document, Origin, Reader
from nazx_cli.errors import DocumentError

READERS: tuple[Reader, ...] = (  # the first that accepts is taken
    Reader("pdf", pdf.accepts, pdf.read),
    Reader("epub", epub.accepts, epub.read),
    Reader("docx", docx.accepts, docx.read),
    Reader("html", html.accepts, html.read),
    Reader("text", text.accepts, text.read),
)


_CHUNK = 1 << 20  # bytes hashed at a time
_MOST_PIPED = 1 << 30  # bytes of a pipe, of which nobody can say how much it gives
_HASHING = 0.3  # of the time that a text file takes, about


def read_file(
    name: str, path: Path, on_progress: Callable[[int, int], None] | None = None
) -> Document:
    """The document at ``path``, shown as ``name``.

    ``on_progress`` is told bytes done and in all. A DocumentError's message continues the file's
    name. What was read from a pipe has no origin, for it cannot be read again.
    """
    with _explained():
        state = path.stat()
        if is_device(state.st_mode) or stat.S_ISSOCK(state.st_mode):
            raise DocumentError("is a device, not a file")
        with path.open("rb") as file:
            if not stat.S_ISREG(state.st_mode):
                data = file.read(_MOST_PIPED + 1)
                if len(data) > _MOST_PIPED:
                    raise DocumentError("is a pipe without end", "save what you want as a file")
                return read_bytes(name, io.BytesIO(data))
            state = os.fstat(file.fileno())  # before reading: a later change is seen as one
            size = state.st_size

            def report(done: float) -> None:
                if on_progress:
                    on_progress(min(size, int(done * size)), size)

            reader = _reader_of(file)
            digest = _hash(file, lambda done: report(done / max(1, size) * _HASHING))
            place = os.path.abspath(path)  # noqa: PTH100 a link may lead elsewhere later
            origin = Origin(place, digest, size, state.st_mtime_ns)
            rest = 1 - _HASHING
            return _read(name, file, reader, origin, lambda done: report(_HASHING + done * rest))


class UnreadableError(DocumentError):
    """The system does not give the file; what is in it has no part in that."""


class NoReaderError(DocumentError):
    """What is in the file is of no kind that is read."""

    def __init__(self) -> None:
        super().__init__("is a binary file")


def hash_of(path: Path, on_progress: Callable[[int], None]) -> str:
    """The SHA-256 of a file, as its origin has it; ``on_progress`` is told bytes done.
    ``UnreadableError`` where the system does not give it, ``NoReaderError`` where its first bytes
    say that it is no document: such files may be of any size."""
    with _explained(), path.open("rb") as file:
        if os.fstat(file.fileno()).st_size:
            _reader_of(file)
        return _hash(file, on_progress)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except PermissionError:
        raise UnreadableError("may not be read", "check its permissions") from None
    except OSError as error:
        raise UnreadableError(f"cannot be read: {error.strerror or error}") from None


def is_device(mode: int) -> bool:
    """Whether a file of this mode is a device, such as /dev/zero, which need not end."""
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def read_bytes(name: str, file: BinaryIO) -> Document:
    """The document in bytes that come from no file; errors as those of ``read_file``."""
    return _read(name, file, _reader_of(file), None, lambda done: None)


def _hash(file: BinaryIO, on_progress: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
        on_progress(file.tell())
    return digest.hexdigest()


def _reader_of(file: BinaryIO) -> Reader:
    """What reads it."""
    if not file.seek(0, io.SEEK_END):
        raise DocumentError("is empty")
    file.seek(0)
    head = file.read(HEAD)
    reader = next((reader for reader in READERS if reader.accepts(head, file)), None)
    if reader is None:
        raise NoReaderError
    return reader


def _read(
    name: str, file: BinaryIO, reader: Reader, origin: Origin | None, advance: Advance
) -> Document:
    content = reader.read(file, advance)
    if not content.text or content.text.isspace():
        raise DocumentError("is empty")
    advance(1.0)
    return Document(name, content.text, reader.format, content.places, origin)
