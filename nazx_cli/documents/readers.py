"""The table of readers: what turns a file's bytes into text.

A format is one file with ``accepts`` and ``read``, and one line here.
"""

from __future__ import annotations

from typing import BinaryIO

from nazx_cli.documents import docx, epub, html, pdf, text
from nazx_cli.documents.reader import HEAD, Reader
from nazx_cli.errors import DocumentError

READERS: tuple[Reader, ...] = (  # the first that accepts is taken
    Reader("pdf", pdf.accepts, pdf.read),
    Reader("epub", epub.accepts, epub.read),
    Reader("docx", docx.accepts, docx.read),
    Reader("html", html.accepts, html.read),
    Reader("text", text.accepts, text.read),
)


def choose_reader(file: BinaryIO) -> Reader:
    """The reader for ``file``, by what is in it; DocumentError where there is none."""
    file.seek(0)
    head = file.read(HEAD)
    for reader in READERS:
        if reader.accepts(head, file):
            return reader
    raise DocumentError("is a binary file")
