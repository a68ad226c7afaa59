"""The table of readers: what turns a file's bytes into text.

A format is one file with ``accepts`` and ``read``, and one line here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nazx_cli.documents import text
from nazx_cli.errors import DocumentError

HEAD = 8192
"""Bytes at the start of a file that ``accepts`` is shown."""


@dataclass(frozen=True)
class Reader:
    """A format's reader.

    ``accepts(head, suffix)`` says from a file's first ``HEAD`` bytes, with its lower-case
    suffix as no more than a hint, whether ``read(data)`` should be tried. ``read`` raises a
    DocumentError whose message continues the file's name ("is a binary file").
    """

    format: str
    accepts: Callable[[bytes, str], bool]
    read: Callable[[bytes], str]


READERS: tuple[Reader, ...] = (  # the first that accepts is taken
    Reader("text", text.accepts, text.read),
)


def choose_reader(head: bytes, suffix: str) -> Reader:
    """The reader for a file that begins with ``head``; DocumentError where there is none."""
    for reader in READERS:
        if reader.accepts(head, suffix):
            return reader
    raise DocumentError("is a binary file")
